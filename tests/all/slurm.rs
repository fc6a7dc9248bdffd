//! A sweep through a real Slurm (Debian's `slurmctld slurmd slurm-client munge`), on a cluster of one node that the test
//! starts and stops.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::lab::{Lab, with_sets};
use crate::common::outcome::{assert_same, files, sweep_outcome};
use crate::common::process::find_program;

/// A cluster of this machine alone, gone when it is dropped.
struct Cluster {
    dir: TempDir,
    daemons: Vec<Child>,
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Where one of Slurm's programs is.
fn program(name: &str) -> PathBuf {
    find_program(name)
        .unwrap_or_else(|| panic!("no {name}: apt-get install slurmctld slurmd slurm-client munge"))
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
        let mut command = Command::new(program(name));
        command.args(args).env("SLURM_CONF", self.dir.path().join("slurm.conf")).stdin(Stdio::null());
        self.daemons.push(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    fn run(&self, name: &str, args: &[&str]) -> Output {
        let conf = self.dir.path().join("slurm.conf");
        output(Command::new(program(name)).args(args).env("SLURM_CONF", conf))
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

#[test]
#[ignore = "needs Slurm: apt-get install slurmctld slurmd slurm-client munge"]
fn needs_slurm_a_sweep_gives_what_the_same_sweep_gives_here() {
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
    assert_same(&sweep_outcome(&lab.path("here")), &sweep_outcome(&lab.path("there")), "through Slurm");

    // A cell that is missing is the only one that is made again.
    let cell = lab.cell("there", "mix-1_seed-1");
    fs::remove_dir_all(&cell).unwrap();
    lab.succeed(&with_sets(&[&axes[..], &sbatch].concat(), &quick));
    let array = fs::read_to_string(lab.path("there/slurm/array.sbatch")).unwrap();
    assert!(array.contains("--array=0-0%2"), "{array}");
    cluster.submit(&lab, "there");
    assert_same(
        &sweep_outcome(&lab.path("here")),
        &sweep_outcome(&lab.path("there")),
        "one cell again through Slurm",
    );
}
