//! What `cargo xtask fuzz` asks: `targets list` says which there are, `targets seeds TARGET DIRECTORY` writes what each begins with.

use std::path::Path;
use std::process::ExitCode;
use vfsx_fuzz::{TARGETS, find};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["list"] => {
            TARGETS
                .iter()
                .for_each(|t| println!("{}\t{}\t{}", t.name, t.longest, t.about));
            Ok(())
        }
        ["seeds", target, directory] => seeds(target, Path::new(directory)),
        _ => Err("it is `targets list` or `targets seeds TARGET DIRECTORY`".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn seeds(target: &str, directory: &Path) -> Result<(), String> {
    let target = find(target).ok_or_else(|| format!("there is no target {target:?}"))?;
    for (number, seed) in (target.seeds)().iter().enumerate() {
        let path = directory.join(format!("seed-{number}"));
        std::fs::write(&path, seed).map_err(|e| format!("writing {}: {e}", path.display()))?;
    }
    Ok(())
}
