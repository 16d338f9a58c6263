//! The card on real published packages: two versions of each, fetched by the machine's own npm and pip from the
//! registries that their configuration names.

use anyhow::{Context as _, bail};
use broker::card::{Against, Format, Inspection, Job, run::pack};
use proto::card::Risk;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What is looked at unless other packages are named: small, large, native, minified.
const NPM: &str =
    "express,lodash,react-dom,typescript,esbuild,webpack,axios,next,sharp,@babel/core";
const PYPI: &str =
    "requests,flask,numpy,django,pydantic,boto3,setuptools,cryptography,pillow,black";

/// Which packages.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Packages of npm.
    #[arg(long, value_delimiter = ',', default_value = NPM)]
    npm: Vec<String>,
    /// Packages of PyPI: the wheel for this machine, or the source archive.
    #[arg(long, value_delimiter = ',', default_value = PYPI)]
    pypi: Vec<String>,
    /// Looks at each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Prints what stands out, too.
    #[arg(long)]
    findings: bool,
}

/// Fetches, looks, prints.
pub(crate) fn run(arguments: &Arguments, daemon: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    println!(
        "{:<44} {:>9} {:>9} {:>9} {:>8} {:>8}  findings",
        "package", "packed", "unpacked", "processor", "time", "memory"
    );
    let npm = arguments.npm.iter().map(|name| (Format::Npm, name));
    let pypi = arguments.pypi.iter().map(|name| (Format::Wheel, name));
    for (format, name) in npm.chain(pypi) {
        if let Err(why) = one(arguments, daemon, folder.path(), format, name) {
            println!("{name}: {why:#}");
        }
    }
    Ok(())
}

fn one(
    arguments: &Arguments,
    daemon: &Path,
    folder: &Path,
    format: Format,
    name: &str,
) -> anyhow::Result<()> {
    let [old, new] = versions(format, name)?;
    let before = fetched(folder, format, name, &old)?;
    let now = fetched(folder, format, name, &new)?;
    let format = match now.extension().and_then(|e| e.to_str()) {
        Some("gz") => Format::Sdist,
        _ => format,
    };
    let length = |path: &Path| fs::metadata(path).map(|m| m.len());
    let job = Job {
        format,
        package: name.to_lowercase(),
        version: new.clone(),
        length: length(&now)?,
        previous: Against::Bytes(length(&before)?),
        source: None,
    };
    let (mut times, mut works) = (Vec::new(), Vec::new());
    let mut seen = (None, 0);
    for _ in 0..arguments.rounds.max(1) {
        let (archive, previous) = (File::open(&now)?, File::open(&before)?);
        let packed = pack(job.clone(), archive, Some(previous), None, folder)?;
        let look = looked(daemon, packed)?;
        times.push(look.time);
        works.push(look.work);
        seen = (Some(look.found), look.memory.max(seen.1));
    }
    let inspection = seen.0.context("no round")?;
    let count = |risk| {
        inspection
            .findings
            .iter()
            .filter(|f| f.risk == risk)
            .count()
    };
    println!(
        "{:<44} {:>6.2} MB {:>6.1} MB {:>6.0} ms {:>5.0} ms {:>5.1} MB  {} critical, {} high, {} medium",
        format!("{name} {old} → {new}"),
        megabytes(job.length),
        megabytes(inspection.inside.unpacked),
        median(works),
        median(times),
        megabytes(seen.1 * 1024),
        count(Risk::Critical),
        count(Risk::High),
        count(Risk::Medium)
    );
    if arguments.findings {
        for finding in &inspection.findings {
            println!("    {:?} {}: {}", finding.risk, finding.kind, finding.what);
        }
    }
    Ok(())
}

/// In milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let middle = times.get(times.len() / 2);
    middle.map_or(0.0, |t| t.as_secs_f64() * 1000.0)
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The last two releases.
fn versions(format: Format, name: &str) -> anyhow::Result<[String; 2]> {
    let mut all: Vec<String> = if format == Format::Npm {
        serde_json::from_str(&said("npm", &["view", name, "versions", "--json"])?)?
    } else {
        let text = said("pip", &["index", "versions", name])?;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("Available versions: "));
        let mut all: Vec<_> = line
            .context("no versions")?
            .split(", ")
            .map(str::to_owned)
            .collect();
        all.reverse();
        all
    };
    all.retain(|v| v.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    if format == Format::Npm {
        all.sort_by_key(|v| {
            v.split('.')
                .map(|n| n.parse().unwrap_or(0))
                .collect::<Vec<u64>>()
        });
    }
    let new = all.pop().context("no release")?;
    Ok([all.pop().context("one release alone")?, new])
}

fn fetched(folder: &Path, format: Format, name: &str, version: &str) -> anyhow::Result<PathBuf> {
    let to = folder.join(format!("{}-{version}", name.replace('/', "+")));
    fs::create_dir_all(&to)?;
    let place = to.display().to_string();
    if format == Format::Npm {
        let what = format!("{name}@{version}");
        said("npm", &["pack", &what, "--pack-destination", &place])?;
    } else {
        let what = format!("{name}=={version}");
        said(
            "pip",
            &["download", "--quiet", "--no-deps", "--dest", &place, &what],
        )?;
    }
    let mut files = fs::read_dir(&to)?;
    Ok(files.next().context("nothing was fetched")??.path())
}

fn said(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let done = Command::new(program).args(args).output();
    let done = done.with_context(|| format!("{program} is not installed"))?;
    if !done.status.success() {
        bail!(
            "{program} {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(String::from_utf8(done.stdout)?)
}

/// One look.
struct Look {
    /// From start to end.
    time: Duration,
    /// On a processor: the time that it takes where nothing else runs.
    work: Duration,
    /// Most memory, in kB.
    memory: u64,
    found: Inspection,
}

fn looked(daemon: &Path, packed: File) -> anyhow::Result<Look> {
    let start = Instant::now();
    let mut child = Command::new(daemon)
        .arg("inspect")
        .env_clear()
        .stdin(packed)
        .stdout(Stdio::piped())
        .spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut output = child.stdout.take().context("its output")?;
    let reader = std::thread::spawn(move || {
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut output, &mut answer).map(|_| answer)
    });
    let scheduled = format!("/proc/{}/schedstat", child.id());
    let (mut most, mut work) = (0, 0);
    let ended = loop {
        let text = fs::read_to_string(&scheduled).unwrap_or_default();
        let nanoseconds = text.split(' ').next().and_then(|n| n.parse().ok());
        work = work.max(nanoseconds.unwrap_or(0));
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let now = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok());
        most = most.max(now.unwrap_or(0));
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let time = start.elapsed();
    let answer = reader.join().map_err(|_| anyhow::anyhow!("no answer"))??;
    if !ended.success() {
        bail!("the look ended with {ended}");
    }
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    let inspected = answer.get("inspected").context("the archive was refused")?;
    Ok(Look {
        time,
        work: Duration::from_nanos(work),
        memory: most,
        found: serde_json::from_value(inspected.clone())?,
    })
}
