//! Facts for `build_info`.

use std::env::var;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let rustc = var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version
        .ok()
        .and_then(|out| String::from_utf8(out.stdout).ok());
    println!(
        "cargo:rustc-env=PARLEY_RUSTC={}",
        version.unwrap_or_default().trim()
    );
    for (name, fact) in [
        ("PARLEY_TARGET", "TARGET"),
        ("PARLEY_PROFILE", "PROFILE"),
        ("PARLEY_OPT_LEVEL", "OPT_LEVEL"),
    ] {
        println!("cargo:rustc-env={name}={}", var(fact).unwrap_or_default());
    }
    println!("cargo:rustc-env=PARLEY_SOURCES={:016x}", sources());
    println!("cargo:rerun-if-changed=build.rs");
}

/// One number for what the module is built from: FNV-1a over paths and contents. `bench/machine.py` does the same.
fn sources() -> u64 {
    let engine = Path::new("..");
    let mut files: Vec<PathBuf> = vec!["Cargo.toml".into(), "Cargo.lock".into()];
    for part in ["core", "io", "py"] {
        files.push([part, "Cargo.toml"].iter().collect());
        let folder: PathBuf = [part, "src"].iter().collect();
        println!("cargo:rerun-if-changed={}", engine.join(&folder).display());
        collect(engine, &folder, &mut files);
    }
    println!("cargo:rerun-if-changed=../Cargo.toml");
    println!("cargo:rerun-if-changed=../Cargo.lock");
    let mut named: Vec<_> = files
        .iter()
        .map(|file| (file.to_string_lossy().replace('\\', "/"), file))
        .collect();
    named.sort();
    let mut value = 0xcbf2_9ce4_8422_2325_u64;
    for (name, file) in named {
        let contents = fs::read(engine.join(file)).unwrap_or_default();
        for byte in name.bytes().chain([0]).chain(contents) {
            value = (value ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    value
}

fn collect(engine: &Path, folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(engine.join(folder))
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries {
        let path = folder.join(entry.file_name());
        if entry.path().is_dir() {
            collect(engine, &path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}
