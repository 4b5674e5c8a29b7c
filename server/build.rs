//! Lays out what is embedded as the web client: the built client, or a page that says it is not.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

const NOTICE: &str = "<!doctype html>\n<html lang=\"zh-CN\">\n<meta charset=\"utf-8\">\n\
<title>梯田视联</title>\n<h1>网页客户端未包含在此程序中</h1>\n\
<p>请先构建 web-client 再构建服务器。</p>\n\
<p lang=\"en\">This binary was built without the web client. Build web-client first, then the server.</p>\n";

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let dist = root.join("../web-client/dist");
    let web = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("web");
    println!("cargo::rerun-if-changed=build.rs");
    // A folder that is not there is looked for at every build, so that it is found when it comes.
    println!("cargo::rerun-if-changed={}", dist.display());
    println!(
        "cargo::rerun-if-changed={}",
        dist.join("index.html").display()
    );
    if web.exists() {
        fs::remove_dir_all(&web)?;
    }
    let is_wanted = env::var_os("CARGO_FEATURE_EMBED_WEB").is_some();
    if is_wanted && dist.join("index.html").is_file() {
        copy(&dist, &web)
    } else {
        fs::create_dir_all(&web)?;
        fs::write(web.join("index.html"), NOTICE)
    }
}
