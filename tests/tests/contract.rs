//! `lab.json` is what programs outside this repository work with: every command in it runs from anywhere, with nothing
//! in the environment.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use vfsx_tests::compare;
use vfsx_tests::lab::{Description, Lab, Service};
use vfsx_tests::smb::SmbClient;
use vfsx_tests::testlab::with_lab;

fn run(argv: &[String]) -> Result<()> {
    let (program, arguments) = argv.split_first().context("a command has a program")?;
    ensure!(Path::new(program).is_absolute(), "{program} is not absolute");
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .output();
    let output = output.with_context(|| format!("run {argv:?}"))?;
    ensure!(
        output.status.success(),
        "{argv:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[test]
fn every_command_of_lab_json_runs_from_anywhere() {
    with_lab(
        |options| options.sites = 2,
        |lab| {
            let description = Description::read(lab.dir())?;
            put(lab, "first")?;
            kill_and_start(&lab.vfsxd, &description.vfsxd.start)?;
            kill_and_start(&lab.smbd, &description.smb.start)?;
            for (site, described) in lab.sites.iter().zip(&description.sites) {
                kill_and_start(&site.service, &described.start)?;
            }
            put(lab, "second")?;
            run(&description.settle)?;
            for site in &description.sites {
                let out = lab.dir().join(format!("replica-of-{}", site.name));
                let fill = |word: &String| {
                    word.replace("{out}", &out.display().to_string())
                        .replace("{site}", &site.name)
                };
                run(&description.export.iter().map(fill).collect::<Vec<_>>())?;
                let report = compare::compare(lab.share("data")?, &out, &compare::Options::default())?;
                ensure!(
                    report.identical && report.files == 2,
                    "replica of {}: {report}",
                    site.name
                );
            }
            Ok(())
        },
    );
}

fn put(lab: &Lab, name: &str) -> Result<()> {
    SmbClient::new(lab, "data").put(Path::new("/etc/passwd"), name)
}

/// The pid file names the process, and the start command is all that is needed to have it back.
fn kill_and_start(service: &Service, start: &[String]) -> Result<()> {
    ensure!(service.pid().is_some(), "{} does not run", service.name);
    service.kill9()?;
    run(start)?;
    ensure!(
        service.pid().is_some(),
        "{} does not run after its start command",
        service.name
    );
    Ok(())
}
