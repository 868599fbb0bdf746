//! A day's work on a share that has files: every kind of change a client can make, by real clients.

use super::random::{self, Random};
use crate::lab::Lab;
use crate::smb::{Session, SmbClient, quote};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Every file falls into one of this many classes; the first ones are worked on.
const CLASSES: usize = 40;
/// Directories renamed, and directories deleted with all that is in them.
const DIRECTORIES: usize = 8;
/// Folder whose files later rounds leave alone: some of them refuse to be overwritten.
const ODD: &str = "odd";
/// Everyone, as Windows knows it.
const EVERYONE: &str = "S-1-1-0";
const READ_ACCESS: u32 = 0x0012_0089;

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub operations: u64,
    pub bytes: u64,
}

/// Works on `share`. The same files and the same `round` give the same changes; `say` is told what is going on.
pub fn work(lab: &Lab, share: &str, round: u64, say: &mut dyn FnMut(&str)) -> Result<Counts> {
    let mut day = Day {
        root: lab.share(share)?.to_owned(),
        scratch: lab.dir().join("run"),
        client: SmbClient::new(lab, share),
        session: Session::connect(lab, share)?,
        round,
        random: Random(round),
        counts: Counts::default(),
    };
    for (what, step) in STEPS {
        say(what);
        step(&mut day).with_context(|| format!("{what} on share {share}"))?;
    }
    Ok(day.counts)
}

type Step = fn(&mut Day) -> Result<()>;

const STEPS: [(&str, Step); 13] = [
    ("edits in place", Day::edits),
    ("files overwritten", Day::overwrites),
    ("files saved by replacing them", Day::saves),
    ("renames and moves", Day::renames),
    ("deletes", Day::deletes),
    ("hard links", Day::links),
    ("extended attributes", Day::attributes),
    ("DOS attributes", Day::modes),
    ("time stamps", Day::times),
    ("access control lists", Day::acls),
    ("copies made by the server", Day::copies),
    ("sparse files, names, open handles", Day::oddities),
    ("directories renamed and deleted", Day::directories),
];

struct Day {
    /// The share's directory on disk: looked at to choose files, never written.
    root: PathBuf,
    /// For files that smbclient copies from.
    scratch: PathBuf,
    client: SmbClient,
    session: Session,
    round: u64,
    random: Random,
    counts: Counts,
}

impl Day {
    /// Files of one class as they are now, with `/` between the parts of their paths.
    fn class(&self, class: usize) -> Result<Vec<String>> {
        let (files, _) = super::walk(&self.root)?;
        let shift = self.round as usize * 17 + class;
        let plain = files.iter().filter(|file| !file.starts_with(ODD));
        let chosen = plain
            .enumerate()
            .filter(|(number, _)| (number + shift).is_multiple_of(CLASSES));
        Ok(chosen
            .filter_map(|(_, file)| file.to_str().map(str::to_owned))
            .collect())
    }

    fn run(&mut self, commands: Vec<String>) -> Result<()> {
        self.counts.operations += commands.len() as u64;
        self.client.run(&commands).map(drop)
    }

    fn edits(&mut self) -> Result<()> {
        for (number, file) in self.class(0)?.iter().enumerate() {
            let size = self.size(file)?;
            let handle = self.session.create(file, "open")?;
            let at = self.random.next() % (size + 1);
            let data = self.random.bytes(1 + (at % 9000) as usize);
            match number % 3 {
                0 => self.session.write(handle, at, &data)?,
                1 => self.session.write(handle, size, &data)?,
                _ => self.session.truncate(handle, at)?,
            }
            if number % 7 == 0 {
                self.session.flush(handle)?;
            }
            self.session.close(handle)?;
            self.count(data.len());
        }
        Ok(())
    }

    fn overwrites(&mut self) -> Result<()> {
        let new = self.scratch.join("overwrite");
        let mut commands = Vec::new();
        for file in self.class(1)? {
            commands.push(format!("put \"{}\" {}", new.display(), quote(&file)));
        }
        let size = 1000 + self.random.next() % 200_000;
        random::random_file(&new, size, self.round)?;
        self.counts.bytes += size * commands.len() as u64;
        self.run(commands)
    }

    /// As word processors save: a new file beside the old one, renamed over it.
    fn saves(&mut self) -> Result<()> {
        for file in self.class(2)? {
            let data = self.random.bytes(20_000);
            let handle = self.session.create(&format!("{file}.tmp"), "create")?;
            self.session.write(handle, 0, &data)?;
            self.session.rename_open(handle, &file, true)?;
            self.session.close(handle)?;
            self.count(data.len());
        }
        Ok(())
    }

    fn renames(&mut self) -> Result<()> {
        let folder = format!("moved-{}", self.round);
        let mut commands = vec![format!("mkdir {}", quote(&folder))];
        for file in self.class(3)? {
            commands.push(format!(
                "rename {} {}",
                quote(&file),
                quote(&format!("{file}.renamed-{}", self.round))
            ));
        }
        for (number, file) in self.class(4)?.iter().enumerate() {
            commands.push(format!(
                "rename {} {}",
                quote(file),
                quote(&format!("{folder}/{number}"))
            ));
        }
        self.run(commands)
    }

    fn deletes(&mut self) -> Result<()> {
        let commands = self
            .class(5)?
            .iter()
            .map(|file| format!("rm {}", quote(file)))
            .collect();
        self.run(commands)
    }

    fn links(&mut self) -> Result<()> {
        let files = self.class(6)?;
        let link = |file: &String| {
            format!(
                "hardlink {} {}",
                quote(file),
                quote(&format!("{file}.link-{}", self.round))
            )
        };
        self.run(files.iter().map(link).collect())?;
        // The content of all names of a file changes with one write, and one name less leaves the others.
        if let Some(file) = files.first() {
            let handle = self
                .session
                .create(&format!("{file}.link-{}", self.round), "open")?;
            self.session.write(handle, 0, b"through the other name")?;
            self.session.close(handle)?;
        }
        self.run(
            files
                .iter()
                .skip(1)
                .step_by(4)
                .map(|file| format!("rm {}", quote(file)))
                .collect(),
        )
    }

    fn attributes(&mut self) -> Result<()> {
        let files = self.class(7)?;
        let set = |file: &String| format!("setea {} Origin round-{}", quote(file), self.round);
        self.run(files.iter().map(set).collect())?;
        let remove = |file: &String| format!("setea {} Origin \"\"", quote(file));
        self.run(files.iter().step_by(3).map(remove).collect())
    }

    fn modes(&mut self) -> Result<()> {
        let mut commands = Vec::new();
        for file in self.class(8)? {
            commands.push(format!("setmode {} +rhs", quote(&file)));
            commands.push(format!("setmode {} -rhsa", quote(&file)));
        }
        self.run(commands)
    }

    fn times(&mut self) -> Result<()> {
        let files = self.class(9)?;
        let set = |file: &String| {
            format!(
                "utimes {} 2001:02:03-04:05:06 2002:02:03-04:05:06 2003:02:03-04:05:06 -1",
                quote(file)
            )
        };
        self.run(files.iter().map(set).collect())
    }

    fn acls(&mut self) -> Result<()> {
        for file in self.class(10)? {
            let handle = self.session.create(&file, "open")?;
            self.session.grant(handle, EVERYONE, READ_ACCESS)?;
            self.session.close(handle)?;
            self.count(0);
        }
        Ok(())
    }

    fn copies(&mut self) -> Result<()> {
        let files = self.class(11)?;
        let copy = |file: &String| {
            format!(
                "scopy {} {}",
                quote(file),
                quote(&format!("{file}.copy-{}", self.round))
            )
        };
        self.run(files.iter().map(copy).collect())
    }

    fn oddities(&mut self) -> Result<()> {
        let folder = format!("{ODD}/{}", self.round);
        if !self.root.join(ODD).exists() {
            self.run(vec![format!("mkdir {ODD}")])?;
        }
        self.run(vec![
            format!("mkdir {}", quote(&folder)),
            format!("mkdir {}", quote(&format!("{folder}/empty"))),
        ])?;
        let (session, random) = (&mut self.session, &mut self.random);

        let sparse = session.create(&format!("{folder}/sparse"), "create")?;
        session.set_sparse(sparse)?;
        session.truncate(sparse, 64 << 20)?;
        session.write(sparse, 33 << 20, &random.bytes(10_000))?;
        session.fill(sparse, 0, 400_000, self.round)?;
        session.zero(sparse, 100_000, 300_000)?;
        session.close(sparse)?;

        for name in [
            "Ärger & Söhne.txt",
            "日本語.doc",
            "it's here",
            "trailing~1",
            "$money",
            "%41",
        ] {
            let handle = session.create(&format!("{folder}/{name}"), "create")?;
            session.write(handle, 0, name.as_bytes())?;
            session.close(handle)?;
        }

        // Renamed and written while open; deleted while a second handle still writes.
        let moving = session.create(&format!("{folder}/before"), "create")?;
        session.write(moving, 0, b"before")?;
        session.rename_open(moving, &format!("{folder}/after"), false)?;
        session.write(moving, 6, b" and after")?;
        session.close(moving)?;
        let going = session.create(&format!("{folder}/going"), "create")?;
        let writer = session.create(&format!("{folder}/going"), "open")?;
        session.delete_on_close(going)?;
        session.write(writer, 0, b"nobody will read this")?;
        session.close(going)?;
        session.close(writer)?;
        // A name used again at once for another kind of object.
        self.run(vec![
            format!("mkdir {}", quote(&format!("{folder}/again"))),
            format!("rmdir {}", quote(&format!("{folder}/again"))),
        ])?;
        let again = self.session.create(&format!("{folder}/again"), "create")?;
        self.session.write(again, 0, b"hidden")?;
        self.session.close(again)?;
        self.run(vec![format!("setmode {} +hs", quote(&format!("{folder}/again")))])?;
        self.counts.operations += 20;
        Ok(())
    }

    fn directories(&mut self) -> Result<()> {
        let (_, dirs) = super::walk(&self.root)?;
        let leaves = |dir: &&str| !dirs.iter().any(|other| other.parent() == Some(Path::new(dir)));
        let names: Vec<_> = dirs
            .iter()
            .filter_map(|dir| dir.to_str())
            .filter(|dir| dir.contains('/') && !dir.starts_with(ODD))
            .collect();
        let (renamed, deleted): (Vec<_>, Vec<_>) = (
            names.iter().copied().filter(|dir| !leaves(dir)).collect(),
            names.iter().copied().filter(leaves).collect(),
        );
        let step = |list: &Vec<&str>| (list.len() / DIRECTORIES).max(1);
        // Deepest first: a renamed parent would take the others' names away.
        let mut commands: Vec<_> = deleted
            .iter()
            .step_by(step(&deleted))
            .take(DIRECTORIES)
            .map(|dir| format!("deltree {}", quote(dir)))
            .collect();
        let mut chosen: Vec<_> = renamed.iter().step_by(step(&renamed)).take(DIRECTORIES).collect();
        chosen.sort_by_key(|dir| std::cmp::Reverse(dir.matches('/').count()));
        let rename = |dir: &&&str| {
            format!(
                "rename {} {}",
                quote(dir),
                quote(&format!("{dir} of round {}", self.round))
            )
        };
        commands.extend(chosen.iter().map(rename));
        self.run(commands)
    }

    fn size(&self, file: &str) -> Result<u64> {
        let path = self.root.join(file);
        Ok(path.metadata().with_context(|| path.display().to_string())?.len())
    }

    fn count(&mut self, bytes: usize) {
        self.counts.operations += 1;
        self.counts.bytes += bytes as u64;
    }
}
