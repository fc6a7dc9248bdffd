//! A sweep through a real Slurm (`slurmctld`, `slurmd`, `munged` of Debian's `slurmctld slurmd slurm-client munge`), on
//! a cluster of one node that the test starts and stops. Without these programs it says so and is skipped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::lab::{Lab, assert_same, files, outcome, with_sets};
use serde_json::Value;
use tempfile::TempDir;

/// A cluster of this machine alone, gone when it is dropped.
struct Cluster {
    dir: TempDir,
    daemons: Vec<Child>,
}

/// Where a program is: daemons stand in /usr/sbin, which is not on everybody's PATH.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin", "/sbin"]);
    folders.map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_string()
}

impl Cluster {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["state", "spool"] {
            fs::create_dir(at(folder)).unwrap();
        }
        fs::write(at("key"), [7u8; 128]).unwrap();
        fs::set_permissions(at("key"), fs::Permissions::from_mode(0o600)).unwrap();
        let host = text(&output(Command::new("hostname").arg("-s")).stdout);
        let user = text(&output(Command::new("id").arg("-un")).stdout);
        let root = dir.path().display();
        let (controller, node) = (free_port(), free_port());
        let conf = format!(
            "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={controller}\nSlurmdPort={node}\n\
             AuthType=auth/munge\nAuthInfo=socket={root}/munge.socket\nCredType=cred/munge\n\
             SlurmUser={user}\nSlurmdUser={user}\nStateSaveLocation={root}/state\nSlurmdSpoolDir={root}/spool\n\
             SlurmctldPidFile={root}/slurmctld.pid\nSlurmdPidFile={root}/slurmd.pid\n\
             ProctrackType=proctrack/pgid\nTaskPlugin=task/none\nMpiDefault=none\nReturnToService=2\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\n\
             AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs={} RealMemory=1024 State=UNKNOWN\n\
             PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n",
            std::thread::available_parallelism().unwrap()
        );
        fs::write(at("slurm.conf"), conf).unwrap();
        let mut cluster = Self { dir, daemons: Vec::new() };
        let root = cluster.dir.path().to_path_buf();
        let file = |option: &str, name: &str| [option.to_string(), root.join(name).display().to_string()];
        let mut munge = vec!["--foreground".to_string(), "--force".into()];
        munge.extend(file("--key-file", "key"));
        munge.extend(file("--socket", "munge.socket"));
        munge.extend(file("--pid-file", "munged.pid"));
        munge.extend(file("--log-file", "munged.log"));
        munge.extend(file("--seed-file", "munge.seed"));
        cluster.daemon("munged", &munge);
        cluster.wait_for("munged", |c| c.dir.path().join("munge.socket").exists());
        cluster.daemon("slurmctld", &["-D".into()]);
        cluster.wait_for("slurmctld", |c| c.run("sinfo", &["--noheader"]).status.success());
        cluster.daemon("slurmd", &["-D".into()]);
        cluster
            .wait_for("slurmd", |c| text(&c.run("sinfo", &["--noheader", "--format=%T"]).stdout) == "idle");
        cluster
    }

    fn daemon(&mut self, name: &str, args: &[String]) {
        let log = File::create(self.dir.path().join(format!("{name}.out"))).unwrap();
        let mut command = Command::new(program(name).unwrap());
        command.args(args).env("SLURM_CONF", self.dir.path().join("slurm.conf")).stdin(Stdio::null());
        self.daemons.push(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    fn run(&self, name: &str, args: &[&str]) -> Output {
        let conf = self.dir.path().join("slurm.conf");
        output(Command::new(program(name).unwrap()).args(args).env("SLURM_CONF", conf))
    }

    fn wait_for(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is(self) {
            if begun.elapsed() > Duration::from_secs(120) {
                let logs = ["munged", "slurmctld", "slurmd"].map(|name| {
                    let log = fs::read_to_string(self.dir.path().join(format!("{name}.out")));
                    format!("{name}:\n{}", log.unwrap_or_default())
                });
                panic!("waited in vain for {what}\n{}", logs.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Hands a sweep to the scheduler and waits until it has no job left.
    fn submit(&self, lab: &Lab, sweep: &str) {
        let conf = self.dir.path().join("slurm.conf");
        let mut command = Command::new("bash");
        command.arg(lab.path(sweep).join("slurm/submit")).env("SLURM_CONF", conf);
        // What the jobs inherit from whoever submits them.
        command.env("HF_HUB_OFFLINE", "1").env("TRAINER_CACHE", lab.path("cache"));
        let ran = output(&mut command);
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        assert!(text(&ran.stdout).starts_with("cells: job "), "{}", text(&ran.stdout));
        self.wait_for("the jobs", |c| {
            let queue = c.run("squeue", &["--noheader"]);
            queue.status.success() && text(&queue.stdout).is_empty()
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SIGTERM, so that they stop what they have started.
        for daemon in self.daemons.iter_mut().rev() {
            Command::new("kill").arg(daemon.id().to_string()).status().ok();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(10) && matches!(daemon.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(50));
            }
            daemon.kill().ok();
            daemon.wait().ok();
        }
    }
}

/// The summary without times, and what every cell learned.
fn result(sweep: &Path) -> BTreeMap<String, Vec<u8>> {
    let csv = fs::read_to_string(sweep.join("summary.csv")).unwrap();
    let time = csv.lines().next().unwrap().split(',').position(|c| c == "elapsed_s").unwrap();
    let mut result = BTreeMap::new();
    for (i, line) in csv.lines().enumerate() {
        let fields = line.split(',').enumerate().filter(|(column, _)| *column != time).map(|(_, f)| f);
        result.insert(format!("summary.csv:{i}"), fields.collect::<Vec<_>>().join(",").into_bytes());
    }
    for cell in fs::read_dir(sweep.join("cells")).unwrap().map(|e| e.unwrap()) {
        let id = cell.file_name().into_string().unwrap();
        result.extend(outcome(&cell.path()).into_iter().map(|(name, bytes)| (format!("{id}/{name}"), bytes)));
    }
    result
}

#[test]
fn slurm_gives_what_the_same_sweep_gives_here() {
    if let Some(missing) =
        ["munged", "slurmctld", "slurmd", "sbatch"].into_iter().find(|name| program(name).is_none())
    {
        // Not by a macro, whose output the test runner keeps to itself.
        let line = format!(
            "SKIPPED: slurm_gives_what_the_same_sweep_gives_here: no {missing} (Debian: slurmctld slurmd slurm-client munge)\n"
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let lab = Lab::new();
    let axes = ["sweep", "recipe.toml", "--mix", "0,1", "--seeds", "0,1", "--threads", "1", "--jobs", "2"];
    let quick = ["diff.steering.prompts=1", "diff.null_directions=4"];
    lab.succeed(&with_sets(&[&axes[..], &["--out", "here"]].concat(), &quick));

    let sbatch = ["--launcher", "slurm", "--sbatch=--time=10", "--out", "there"];
    let ran = lab.succeed(&with_sets(&[&axes[..], &sbatch].concat(), &quick));
    assert!(ran.stdout.trim().ends_with("there/slurm/submit"), "{}", ran.stdout);
    let array = fs::read_to_string(lab.path("there/slurm/array.sbatch")).unwrap();
    for line in
        ["#SBATCH --array=0-3%2", "#SBATCH --time=10", "#SBATCH --cpus-per-task=1", "#SBATCH --mem=1G"]
    {
        assert!(array.lines().any(|l| l == line), "{line} not in\n{array}");
    }
    let cluster = Cluster::start();
    cluster.submit(&lab, "there");
    let status: Value =
        serde_json::from_str(&lab.succeed(&["sweep", "--status", "there", "--json"]).stdout).unwrap();
    let logs = files(&lab.path("there/slurm"));
    let logs: String = logs.values().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
    assert_eq!(status["done"], 4, "{status:#}\n{logs}");
    assert!(lab.path("there/report.html").exists() && lab.path("there/summary.parquet").exists(), "{logs}");
    assert_same(&result(&lab.path("here")), &result(&lab.path("there")), "through Slurm");

    // A cell that is missing is the only one that is made again.
    let cell = lab.cell("there", "mix-1_seed-1");
    fs::remove_dir_all(&cell).unwrap();
    lab.succeed(&with_sets(&[&axes[..], &sbatch].concat(), &quick));
    let array = fs::read_to_string(lab.path("there/slurm/array.sbatch")).unwrap();
    assert!(array.contains("--array=0-0%2"), "{array}");
    cluster.submit(&lab, "there");
    assert_same(&result(&lab.path("here")), &result(&lab.path("there")), "one cell again through Slurm");
}
