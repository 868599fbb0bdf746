use vfsx_tests::{lab::*, smb::*};
fn main() -> anyhow::Result<()> {
    let dir = std::env::args().nth(1).unwrap();
    let b = Binaries { restfs: "/bin/true".into(), vfsxd: "/bin/true".into(), vfsxctl: "/bin/true".into(), module: "/bin/true".into() };
    let mut o = LabOptions::new(b);
    o.vfs_objects = "streams_xattr acl_xattr".into();
    o.vfsxd = false;
    let lab = Lab::prepare(dir.as_ref(), &o)?;
    lab.smbd.start()?;
    let c = SmbClient::new(&lab, "data");
    println!("{}", c.run(&["mkdir d", "put /etc/passwd d\\p", "setea d\\p ea1 val", "setmode d\\p +rh", "allinfo d\\p", "hardlink d\\p d\\q", "ls d\\*", "utimes d\\p 2001:01:02-03:04:05 2001:01:02-03:04:05 2001:01:02-03:04:05 -1","help"])?);
    let mut s = Session::connect(&lab, "data")?;
    let h = s.create("d/big", "create")?;
    s.truncate(h, 1<<32)?;
    s.random_writes(h, 256, 4096, 1<<32, 7)?;
    s.rename_open(h, "d/q", true)?; s.grant(h,"S-1-1-0",0x1f01ff)?;
    s.close(h)?;
    println!("{:?}", s.create("nope","open"));
    println!("{}", String::from_utf8_lossy(&std::process::Command::new("sh").arg("-c").arg(format!("ps axf | grep -E 'smbd|samba|rpcd'; ls -la {0}/share/data/d; du {0}/share/data/d/big; getfattr -d -m - {0}/share/data/d/p; getfacl {0}/share/data/d/p", lab.dir().display())).output()?.stdout));
    drop(s);
    let r = lab.stop();
    println!("{:?}", r);
    Ok(())
}
