//! Facts for `build_info`.

use std::env::var;
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
    println!(
        "cargo:rustc-env=PARLEY_TARGET={}",
        var("TARGET").unwrap_or_default()
    );
    println!(
        "cargo:rustc-env=PARLEY_PROFILE={}",
        var("PROFILE").unwrap_or_default()
    );
    println!("cargo:rerun-if-changed=build.rs");
}
