//! vfsxd of the lab.

use super::description::VfsxdDescription;
use super::process::{Service, quote};
use super::{BUCKET, Binaries, LabOptions, Site, service};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// State directory of vfsxd in the lab's: the module notes gaps in it.
pub(super) const STATE: &str = "vfsxd";

pub(super) struct Prepared {
    pub(super) description: VfsxdDescription,
    pub(super) service: Service,
}

/// Writes the configuration and the start script.
pub(super) fn prepare(
    dir: &Path,
    binaries: &Binaries,
    share: &Path,
    sites: &[Site],
    options: &LabOptions,
) -> Result<Prepared> {
    let service = service(dir, "vfsxd");
    options.vfsxd_place.make_data(&dir.join(STATE))?;
    let description = VfsxdDescription {
        config: dir.join("vfsxd.toml"),
        socket: dir.join("run/vfsxd.sock"),
        pid_file: service.pid_file.clone(),
        start: vec![service.start_script.display().to_string()],
        log: service.log.clone(),
    };
    let bounds = [
        ("journal_max", options.journal_max),
        ("changes_max", options.changes_max),
        ("sessions_max", options.sessions_max),
    ];
    let lines = bounds
        .iter()
        .filter_map(|(key, bound)| bound.map(|bound| format!("{key} = {bound}\n")));
    let mut text = lines.collect::<String>() + &configuration(dir, &description, share, sites);
    if let Some(reconcile) = &options.reconcile {
        text += &format!("\n[reconcile]\n{reconcile}\n");
    }
    if let Some(space) = &options.space {
        text += &format!("\n[space]\n{space}\n");
    }
    fs::write(&description.config, text)
        .with_context(|| format!("write {}", description.config.display()))?;
    let vfsxd = binaries.vfsxd.display().to_string();
    let config = description.config.display().to_string();
    let argv = options.vfsxd_place.run([vfsxd, "--config".into(), config]);
    let status = vfsxctl(binaries, &description, &["status", "--json"]);
    let ready: Vec<_> = status.iter().map(|word| quote(word)).collect();
    service.write_script(&argv, &ready.join(" "))?;
    Ok(Prepared { description, service })
}

/// Command line of vfsxctl for this lab's vfsxd.
pub(super) fn vfsxctl(binaries: &Binaries, vfsxd: &VfsxdDescription, arguments: &[&str]) -> Vec<String> {
    let program = binaries.vfsxctl.display().to_string();
    let mut argv = vec![program, "--config".to_owned(), vfsxd.config.display().to_string()];
    argv.extend(arguments.iter().map(|&word| word.to_owned()));
    argv
}

/// The file as an admin would write it, but for the places.
fn configuration(dir: &Path, vfsxd: &VfsxdDescription, share: &Path, sites: &[Site]) -> String {
    let mut text = format!(
        "state_dir = {:?}\n\
         socket = {:?}\n\
         control = {:?}\n\
         \n\
         [[share]]\n\
         name = \"data\"\n\
         path = {:?}\n",
        dir.join(STATE),
        vfsxd.socket,
        dir.join("run/control.sock"),
        share,
    );
    for site in sites {
        text += &format!(
            "\n\
             [[site]]\n\
             name = {:?}\n\
             url = {:?}\n\
             bucket = \"{BUCKET}\"\n\
             token_file = {:?}\n\
             ca_file = {:?}\n",
            site.description.name, site.description.url, site.token, site.certificate,
        );
    }
    text
}
