//! What about the data file, and where it lies, may lose or delay jobs.
//!
//! How it is written is no setting: every commit that must survive a power failure waits for the disk.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use rusqlite::Connection;

use super::{schema, sqlite, unusable};
use queue::{Result, Risk, Severity};

/// Less than this and a burst of jobs with inputs may fill the disk before anybody looks.
const LITTLE_ROOM_BYTES: u64 = 1 << 30;

/// Less than this and it is about to happen.
const NO_ROOM_BYTES: u64 = 100 << 20;

/// Where the kernel tells what is mounted (Linux; proc(5)).
const MOUNTS: &str = "/proc/self/mountinfo";

pub(super) fn risks(connection: &Connection, file: &Path, max_size_bytes: Option<u64>) -> Result<Vec<Risk>> {
    let folder = file.parent().unwrap_or(file);
    let folder = folder.canonicalize().map_err(|error| unusable(folder, &error))?;
    let mut risks = Vec::new();
    risks.extend(journal(connection, file)?);
    risks.extend(size(connection, file, max_size_bytes)?);
    risks.extend(of_place(&folder)?);
    Ok(risks)
}

/// What about the disk that a folder is on.
fn of_place(folder: &Path) -> Result<Vec<Risk>> {
    let mut risks = Vec::new();
    let disk = statvfs(folder).map_err(|error| unusable(folder, &error.into()))?;
    #[allow(clippy::useless_conversion, reason = "these are narrower on some systems")]
    let free_bytes = u64::from(disk.blocks_available()).saturating_mul(u64::from(disk.fragment_size()));
    risks.extend(room(folder, free_bytes));
    match std::fs::read_to_string(MOUNTS) {
        Ok(mounts) => risks.extend(file_system(&mounts, folder)),
        Err(error) => risks.push(Risk {
            severity: Severity::Warning,
            subject: format!("folder {}", folder.display()),
            setting: "file system".to_owned(),
            found: format!("not checked: {MOUNTS}: {error}"),
            why: "on a network file system the data file can be damaged".to_owned(),
            advice: "make sure that the folder is on a disk of this machine".to_owned(),
        }),
    }
    Ok(risks)
}

/// What stands before the first use of `file`, which is made or converted then; `None`: nothing does. Changes nothing.
pub(super) fn before_use(file: &Path) -> Result<Option<Vec<Risk>>> {
    let folder = file.parent().unwrap_or(file);
    let is_there = file.try_exists().map_err(|error| unusable(folder, &error))?;
    let (found, why, advice) = match if is_there { schema::version_of(file)? } else { 0 } {
        schema::VERSION => return Ok(None),
        0 => (
            "nothing there yet".to_owned(),
            "it is made at the first start".to_owned(),
            "if jobs are kept in a file already, name its folder",
        ),
        older => (
            format!("schema {older}"),
            format!("the next start converts it to schema {}, which an older millrace cannot read", schema::VERSION),
            "stop what uses the folder and copy it before the next start",
        ),
    };
    let nearest = folder.ancestors().find_map(|ancestor| {
        // Of a relative path the last ancestor is empty.
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        ancestor.canonicalize().ok()
    });
    let nearest = nearest.unwrap_or_else(|| folder.to_owned());
    access(&nearest, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| unusable(&nearest, &error.into()))?;
    let first_use = Risk {
        severity: Severity::Warning,
        subject: format!("file {}", file.display()),
        setting: "data file".to_owned(),
        found,
        why,
        advice: advice.to_owned(),
    };
    Ok(Some([vec![first_use], of_place(&nearest)?].concat()))
}

/// SQLite keeps another journal, without an error, where a file system lacks what a write-ahead log needs.
fn journal(connection: &Connection, file: &Path) -> Result<Option<Risk>> {
    let mode = connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0));
    let mode = mode.map_err(sqlite("look for risks"))?;
    Ok((mode != "wal").then(|| Risk {
        severity: Severity::Severe,
        subject: format!("file {}", file.display()),
        setting: "journal_mode".to_owned(),
        found: mode,
        why: "without a write-ahead log readers and writers hold each other up, and jobs wait".to_owned(),
        advice: "move the folder to a file system with shared memory, such as ext4 or xfs".to_owned(),
    }))
}

fn size(connection: &Connection, file: &Path, max_size_bytes: Option<u64>) -> Result<Option<Risk>> {
    let Some(max_size_bytes) = max_size_bytes else { return Ok(None) };
    let number = |name: &str| {
        connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0)).map_err(sqlite("look for risks"))
    };
    let used_pages = number("page_count")?.saturating_sub(number("freelist_count")?);
    let used_bytes = used_pages.saturating_mul(number("page_size")?);
    Ok((used_bytes > max_size_bytes / 10 * 9).then(|| Risk {
        severity: Severity::Warning,
        subject: format!("file {}", file.display()),
        setting: "max_size".to_owned(),
        found: format!("{used_bytes} of {max_size_bytes} bytes are used"),
        why: "when it is full, submissions are refused".to_owned(),
        advice: "raise max_size in the URL, shorten jobs.retention, or purge dead jobs".to_owned(),
    }))
}

fn room(folder: &Path, free_bytes: u64) -> Option<Risk> {
    let severity = match free_bytes {
        ..NO_ROOM_BYTES => Severity::Severe,
        NO_ROOM_BYTES..LITTLE_ROOM_BYTES => Severity::Warning,
        _ => return None,
    };
    Some(Risk {
        severity,
        subject: format!("folder {}", folder.display()),
        setting: "disk space".to_owned(),
        found: format!("{} MiB free", free_bytes >> 20),
        why: "when the disk is full, submissions are refused and results wait to be written".to_owned(),
        advice: "free space, or move the folder to a larger disk".to_owned(),
    })
}

fn file_system(mounts: &str, folder: &Path) -> Option<Risk> {
    let (mount_point, kind) = mount_of(mounts, folder)?;
    let (severity, why) = match kind.as_str() {
        "9p" | "afs" | "ceph" | "cifs" | "lustre" | "nfs" | "nfs4" | "smb3" | "smbfs" => {
            (Severity::Severe, "locks and shared memory do not reach other machines: the data file can be damaged")
        }
        fuse if fuse == "fuse" || fuse.starts_with("fuse.") => {
            (Severity::Warning, "many such file systems keep neither locks nor what was said to be on disk")
        }
        "tmpfs" | "ramfs" => (Severity::Severe, "it is kept in memory: a restart of the machine loses every job"),
        "overlay" => (Severity::Warning, "it is a container's own layer: jobs are gone with the container"),
        _ => return None,
    };
    Some(Risk {
        severity,
        subject: format!("folder {}", folder.display()),
        setting: "file system".to_owned(),
        found: format!("{kind} at {}", mount_point.display()),
        why: why.to_owned(),
        advice: "put the folder on a disk of this machine, such as ext4 or xfs (in a container: a volume)".to_owned(),
    })
}

/// The mount point below which `folder` lies, and its type. Of mounts on the same point, the last counts.
fn mount_of(mounts: &str, folder: &Path) -> Option<(PathBuf, String)> {
    let parsed = mounts.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mount_point = PathBuf::from(unescaped(before.split(' ').nth(4)?));
        Some((mount_point, after.split(' ').next()?.to_owned()))
    });
    parsed
        .filter(|(mount_point, _)| folder.starts_with(mount_point))
        .max_by_key(|(mount_point, _)| mount_point.components().count())
}

/// The kernel writes white space and backslashes in paths as three octal digits.
fn unescaped(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (escaped, plain)| path.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTED: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /run rw,nosuid shared:2 - tmpfs tmpfs rw
41 22 0:40 / /srv/jobs rw shared:3 - ext4 /dev/sdb rw
42 41 0:41 / /srv/jobs rw shared:4 - nfs4 server:/jobs rw
43 22 0:42 / /mnt/two\\040words rw - fuse.sshfs host:/ rw
";

    #[test]
    fn the_file_system_of_a_folder_is_that_of_the_innermost_and_last_mount() {
        for (folder, kind) in [
            ("/var/lib/millrace", "ext4"),
            ("/run/millrace", "tmpfs"),
            ("/srv/jobs/data", "nfs4"),
            ("/srv/jobsite", "ext4"),
            ("/mnt/two words/data", "fuse.sshfs"),
        ] {
            assert_eq!(mount_of(MOUNTED, Path::new(folder)).unwrap().1, kind, "{folder}");
        }
    }

    #[test]
    fn what_is_not_on_a_disk_of_this_machine_is_a_risk() {
        let severity = |folder: &str| file_system(MOUNTED, Path::new(folder)).map(|risk| risk.severity);
        assert_eq!(severity("/var/lib/millrace"), None);
        assert_eq!(severity("/run/millrace"), Some(Severity::Severe));
        assert_eq!(severity("/srv/jobs"), Some(Severity::Severe));
        assert_eq!(severity("/mnt/two words"), Some(Severity::Warning));
    }

    #[test]
    fn little_room_is_a_risk_and_none_a_severe_one() {
        let severity = |mebibytes: u64| room(Path::new("/data"), mebibytes << 20).map(|risk| risk.severity);
        assert_eq!([99, 100, 1023].map(severity), [Severity::Severe, Severity::Warning, Severity::Warning].map(Some));
        assert_eq!(severity(1024), None);
    }

    #[test]
    fn another_journal_and_a_file_that_is_nearly_full_are_found() {
        let connection = Connection::open_in_memory().unwrap();
        let file = Path::new("/data/millrace.db");
        let found = journal(&connection, file).unwrap().unwrap();
        assert_eq!((found.severity, found.found.as_str()), (Severity::Severe, "memory"));
        connection.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(90000))").unwrap();
        assert!(size(&connection, file, Some(100_000)).unwrap().unwrap().found.contains("of 100000 bytes"));
        assert_eq!(size(&connection, file, Some(1_000_000)).unwrap(), None);
        assert_eq!(size(&connection, file, None).unwrap(), None);
    }
}
