//! Installs what the tests need from the distribution.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::run::{is_installed, run, run_with, tools};

const APT_BUDGET: Duration = Duration::from_secs(600);

/// Debian packages and a program (or file) by which each is known to be there.
const PACKAGES: [(&str, &str); 17] = [
    ("chromium", "/usr/bin/chromium"),
    ("firefox-esr", "/usr/bin/firefox-esr"),
    ("ffmpeg", "/usr/bin/ffmpeg"),
    (
        "fonts-noto-cjk",
        "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    ),
    ("cmake", "/usr/bin/cmake"),
    ("iproute2", "/usr/sbin/ip"),
    ("valgrind", "/usr/bin/valgrind"),
    ("nats-server", "/usr/sbin/nats-server"),
    ("postgresql", "/usr/lib/postgresql/*/bin/initdb"),
    // GStreamer as an encoder and a player (tests/python/gstreamer.py).
    (
        "python3-gi",
        "/usr/lib/python3/dist-packages/gi/__init__.py",
    ),
    (
        "gir1.2-gst-plugins-bad-1.0",
        "/usr/lib/*/girepository-1.0/GstWebRTC-1.0.typelib",
    ),
    (
        "gir1.2-gst-plugins-base-1.0",
        "/usr/lib/*/girepository-1.0/GstSdp-1.0.typelib",
    ),
    (
        "gstreamer1.0-plugins-base",
        "/usr/lib/*/gstreamer-1.0/libgstopus.so",
    ),
    (
        "gstreamer1.0-plugins-good",
        "/usr/lib/*/gstreamer-1.0/libgstvpx.so",
    ),
    (
        "gstreamer1.0-plugins-bad",
        "/usr/lib/*/gstreamer-1.0/libgstwebrtc.so",
    ),
    (
        "gstreamer1.0-plugins-ugly",
        "/usr/lib/*/gstreamer-1.0/libgstx264.so",
    ),
    (
        "gstreamer1.0-nice",
        "/usr/lib/*/gstreamer-1.0/libgstnice.so",
    ),
];

/// Installs the packages that are missing.
pub(crate) fn packages() -> Result<()> {
    install(&PACKAGES)
}

/// Installs one more package unless its program is there.
pub(crate) fn package(name: &str, file: &str) -> Result<()> {
    install(&[(name, file)])
}

fn install(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(_, file)| !is_there(file))
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        println!("everything needed from the distribution is installed");
        return Ok(());
    }
    if !is_installed("apt-get") {
        bail!("install these first: {}", missing.join(" "));
    }
    println!("installing {}", missing.join(" "));
    let is_root = std::env::var("USER").as_deref() == Ok("root")
        || std::fs::metadata("/proc/self")
            .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let (program, before): (&str, &[&str]) = if is_root {
        ("env", &["DEBIAN_FRONTEND=noninteractive"])
    } else {
        ("sudo", &["DEBIAN_FRONTEND=noninteractive"])
    };
    let apt = |words: &[&str]| {
        let arguments: Vec<&str> = before
            .iter()
            .chain(&["apt-get", "-qq"])
            .chain(words)
            .copied()
            .collect();
        run(".", APT_BUDGET, program, &arguments)
    };
    apt(&["update"]).context("apt-get update")?;
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(&missing);
    apt(&words)
}

/// Whether a file is there, in whose path a star may stand for one folder: a version.
fn is_there(file: &str) -> bool {
    let Some((folder, rest)) = file.split_once("/*/") else {
        return std::path::Path::new(file).exists();
    };
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.path().join(rest).exists())
}

/// A tool runs for seconds and is built once: quick to build beats quick to run.
const QUICK_BUILD: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256"),
];

/// Installs a cargo tool into the folder of tools unless it is there; returns its program.
pub(crate) fn cargo_tool(name: &str, version: &str, budget: Duration) -> Result<String> {
    let folder = tools().join(format!("{name}-{version}"));
    let program = folder.join("bin").join(name);
    if !program.exists() {
        println!("installing {name} {version} into the folder of tools");
        let folder = folder.to_string_lossy();
        let arguments = [
            "install",
            "--locked",
            "--root",
            &folder,
            "--version",
            version,
            name,
        ];
        // A folder of its own, so that an installation that was stopped goes on where it was.
        let build = tools().join(format!("{name}-build"));
        let build_folder = build.to_string_lossy();
        let mut variables = QUICK_BUILD.to_vec();
        variables.push(("CARGO_TARGET_DIR", &build_folder));
        run_with(".", budget, "cargo", &arguments, &variables)?;
        std::fs::remove_dir_all(&build).ok();
    }
    Ok(program.to_string_lossy().into_owned())
}
