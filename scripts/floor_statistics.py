"""Scores of one organism against a floor of others: Student's t, z, ranks and Holm's correction. Used by
scripts/false_positives and scripts/hidden_or_gone, and independent of the program's own code."""
import math
from functools import lru_cache

PRIMARIES = ["logit_contrast", "diff_mining", "completion_ranking", "weights"]
# The least step of a score: a floor of equal scores has this as its standard deviation. Shares of 100 decoded tokens; of 20.
RESOLUTION = {"patchscope": 1 / 100, "logit_lens": 1 / 100, "completion_ranking": 1 / 20}
# Fewest organisms of a floor; the level of a claim.
FEWEST, ALPHA = 4, 0.05


# --- Student's t ---


def tail(t, df):
    """P(T > t) for a whole number of degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan2(abs(t), math.sqrt(df))
    cosine, sine = math.cos(angle), math.sin(angle)
    if df % 2:
        term, total = cosine, cosine if df > 1 else 0.0
        for k in range(3, df - 1, 2):
            term *= cosine * cosine * (k - 1) / k
            total += term
        inner = 2 / math.pi * (angle + sine * total)
    else:
        term = total = 1.0
        for k in range(2, df - 1, 2):
            term *= cosine * cosine * (k - 1) / k
            total += term
        inner = sine * total
    return 0.5 - 0.5 * math.copysign(inner, t)


@lru_cache(maxsize=None)
def quantile(p, df):
    low, high = 0.0, 1000.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, df) > 1 - p else (low, middle)
    return (low + high) / 2


# --- Floor ---


def floor_of(values, reader):
    """Mean, spread and number of a floor; none below four values."""
    if len(values) < FEWEST:
        return None
    n = len(values)
    mean = sum(values) / n
    sd = math.sqrt(sum((x - mean) ** 2 for x in values) / (n - 1))
    sd = max(sd, RESOLUTION.get(reader, 1e-3))
    width = sd * math.sqrt(1 + 1 / n)
    return {"values": sorted(values), "n": n, "mean": mean, "sd": sd, "width": width, "t": quantile(1 - ALPHA, n - 1)}


def against(score, floor):
    excess = score - floor["mean"]
    z = excess / floor["width"]
    rank = 1 + sum(value >= score for value in floor["values"])
    return {"score": score, "excess": excess, "z": z, "p": tail(z, floor["n"] - 1), "rank": rank}


def holm(p):
    corrected, last = {}, 0.0
    for i, key in enumerate(sorted(p, key=p.get)):
        last = max(last, min(1.0, p[key] * (len(p) - i)))
        corrected[key] = last
    return corrected
