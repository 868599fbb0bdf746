use vfsx_tests::{lab::*, smb::*, work::*};
fn main() -> anyhow::Result<()> {
    let dir = std::env::args().nth(1).unwrap();
    let b = Binaries {
        restfs: "/bin/true".into(),
        vfsxd: "/bin/true".into(),
        vfsxctl: "/bin/true".into(),
        module: "/bin/true".into(),
    };
    let mut o = LabOptions::new(b);
    o.vfs_objects = "streams_xattr acl_xattr".into();
    o.vfsxd = false;
    let lab = Lab::prepare(dir.as_ref(), &o)?;
    lab.smbd.start()?;
    let t = std::time::Instant::now();
    let tree = SourceTree::make(
        &lab.dir().join("source"),
        Wanted {
            files: 5000,
            bytes: 300 << 20,
            parts: 4,
        },
    )?;
    println!("{} {} {:?}", tree.files, tree.bytes, t.elapsed());
    let t = std::time::Instant::now();
    std::thread::scope(|s| {
        let h: Vec<_> = tree
            .parts
            .iter()
            .map(|p| {
                let (lab, tree) = (&lab, &tree);
                s.spawn(move || {
                    let c = SmbClient::new(lab, "data");
                    c.run(&[format!("mkdir {p}")])?;
                    c.put_tree(&tree.dir.join(p), p)
                })
            })
            .collect();
        for h in h {
            println!("{:?}", h.join().unwrap());
        }
    });
    println!("copy {:?}", t.elapsed());
    for round in 0..2 {
        let t = std::time::Instant::now();
        println!(
            "{:?}",
            work(&lab, "data", round, &mut |w| println!("{w} {:?}", t.elapsed()))
        );
        println!("work {:?}", t.elapsed());
    }
    lab.stop()
}
