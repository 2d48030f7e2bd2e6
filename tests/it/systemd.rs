//! The unit and its drop-ins, judged by systemd itself where it is installed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Output;

/// The highest exposure we accept, in tenths: most daemons have 96.
const EXPOSURE_TENTHS_MAX: u32 = 13;

/// The first systemd that knows every word of `dropins/systemd-254.conf`.
const GROWING_PAUSES_SINCE: u32 = 254;

/// The version of the installed systemd-analyze; says on standard error why a test checks nothing.
fn analyzer() -> Option<u32> {
    let Ok(output) = Command::new("systemd-analyze").arg("--version").output() else {
        eprintln!("skipped: systemd-analyze is not installed");
        return None;
    };
    // "systemd 252 (252.38-1~deb12u1)"
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.split_whitespace().nth(1)?.parse().unwrap())
}

fn shipped(path: &str) -> String {
    fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("systemd")
            .join(path),
    )
    .unwrap()
}

/// The unit as it would be installed, but for the place of the program, which need not be installed here.
fn unit() -> String {
    let unit = shipped("reelvault.service");
    assert!(unit.contains("ExecStart=/usr/bin/reelvault run"));
    unit.replace("/usr/bin/reelvault", env!("CARGO_BIN_EXE_reelvault"))
}

/// Writes the unit and its drop-ins where systemd-analyze finds them.
fn install(unit: &str, dropins: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let beside = folder.path().join("reelvault.service.d");
    fs::write(folder.path().join("reelvault.service"), unit).unwrap();
    fs::create_dir(&beside).unwrap();
    for dropin in dropins {
        fs::write(beside.join(dropin), shipped(&format!("dropins/{dropin}"))).unwrap();
    }
    folder
}

fn analyze(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("systemd-analyze");
    command
        .args(arguments)
        .arg("./reelvault.service")
        .current_dir(folder);
    command.env("SYSTEMD_PAGER", "").output().unwrap()
}

/// What `systemd-analyze verify` has against the unit; other units of the machine are not our matter.
fn complaints(unit: &str, dropins: &[&str]) -> Vec<String> {
    let folder = install(unit, dropins);
    let output = analyze(folder.path(), &["verify", "--man=no"]);
    let said = String::from_utf8_lossy(&output.stderr);
    let ours = said
        .lines()
        .filter(|line| line.contains("reelvault.service"));
    ours.map(str::to_owned).collect()
}

#[test]
fn the_unit_verifies() {
    let Some(version) = analyzer() else { return };
    assert_eq!(complaints(&unit(), &[]), [""; 0]);
    assert_eq!(
        complaints(&unit(), &["credentials.conf", "folder.conf"]),
        [""; 0]
    );
    if version >= GROWING_PAUSES_SINCE {
        assert_eq!(complaints(&unit(), &["systemd-254.conf"]), [""; 0]);
    } else {
        // The check has teeth: this drop-in is none for old versions, and that shows.
        assert!(!complaints(&unit(), &["systemd-254.conf"]).is_empty());
    }
    assert!(!complaints(&unit().replace("RestartSec=", "RestartSecs="), &[]).is_empty());
}

#[test]
fn the_unit_exposes_little() {
    let Some(_) = analyzer() else { return };
    let threshold = format!("--threshold={EXPOSURE_TENTHS_MAX}");
    let judge = |unit: &str, dropins: &[&str]| {
        let folder = install(unit, dropins);
        analyze(
            folder.path(),
            &["security", "--offline=true", "--no-pager", &threshold],
        )
    };
    for dropins in [&[][..], &["credentials.conf", "folder.conf"]] {
        let output = judge(&unit(), dropins);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("Overall exposure level"), "{said}");
    }
    let lax = judge(&unit().replace("SystemCallFilter=", "#"), &[]);
    assert!(!lax.status.success(), "the threshold judges nothing");
}
