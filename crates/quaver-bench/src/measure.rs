//! Running a program, with the time and memory that it took.
//!
//! The system tells a process what all its children together used. So each run has a process of its own that has one child.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

/// Between two looks at whether the program has ended: the error of the wall time.
const PAUSE: Duration = Duration::from_millis(1);

/// Runs a program and prints a [`Run`].
#[derive(clap::Args)]
pub struct Args {
    /// Seconds after which it is killed
    #[arg(long, value_parser = super::seconds)]
    kill: Duration,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// What a program printed and used.
#[derive(Debug, Deserialize, Serialize)]
pub struct Run {
    /// Exit code; none if it was killed.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// And on the other stream.
    pub stderr: String,
    /// From its start to its end.
    pub wall_s: f64,
    /// User and system time of all its threads.
    pub cpu_s: f64,
    /// Largest resident set, in MB.
    pub rss_mb: f64,
}

/// The measuring process.
pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let mut child = Command::new(&args.command[0])
        .args(&args.command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{}: cannot run it", args.command[0]))?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() >= args.kill {
            child.kill()?;
            break child.wait()?;
        }
        thread::sleep(PAUSE);
    };
    let wall_s = start.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 * 1e-6;
    let text =
        |handle: thread::JoinHandle<Vec<u8>>| String::from_utf8_lossy(&handle.join().unwrap_or_default()).into_owned();
    let run = Run {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
        wall_s,
        cpu_s: time(usage.user_time()) + time(usage.system_time()),
        // Linux counts in kB.
        rss_mb: usage.max_rss() as f64 / 1024.0,
    };
    println!("{}", serde_json::to_string(&run)?);
    Ok(())
}

fn collect(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = vec![];
        // What was read before an error counts.
        from.into_iter().for_each(|mut f| drop(f.read_to_end(&mut bytes)));
        bytes
    })
}

/// Runs a program in a measuring process.
pub fn measured(program: &Path, arguments: &[String], kill: Duration) -> Result<Run> {
    let own = std::env::current_exe().context("where this program is")?;
    let output = Command::new(own)
        .args(["measure", "--kill", &kill.as_secs_f64().to_string(), "--"])
        .arg(program)
        .args(arguments)
        .output()
        .context("cannot start the measuring process")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("the measuring process said something else")
}
