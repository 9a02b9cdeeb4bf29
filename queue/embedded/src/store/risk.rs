//! The risks of the data file, its folder and its disk: conditions that may lose or delay jobs.
//!
//! Durability is not a setting: every commit that must survive a power failure waits for the disk.

use std::path::Path;

#[cfg(target_os = "linux")]
use nix::sys::statfs::statfs;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use rusqlite::Connection;

use super::error::{sqlite, unusable};
use super::schema;
use queue::{Result, Risk, Severity};

/// With less free space than this, a burst of jobs with inputs may fill the disk before an operator notices.
const LITTLE_SPACE_BYTES: u64 = 1 << 30;

/// With less free space than this, the disk is about to be full.
const NO_SPACE_BYTES: u64 = 100 << 20;

pub(super) fn risks(connection: &Connection, file: &Path, max_size_bytes: Option<u64>) -> Result<Vec<Risk>> {
    let folder = file.parent().unwrap_or(file);
    let folder = folder.canonicalize().map_err(|error| unusable(folder, &error))?;
    let mut risks = Vec::new();
    risks.extend(journal(connection, file)?);
    risks.extend(size(connection, file, max_size_bytes)?);
    risks.extend(of_disk(&folder)?);
    Ok(risks)
}

/// The risks of the disk that holds a folder.
fn of_disk(folder: &Path) -> Result<Vec<Risk>> {
    Ok(space(folder, free_bytes(folder)?).into_iter().chain(of_file_system(folder)?).collect())
}

/// The free space of the disk that holds a folder.
pub(super) fn free_bytes(folder: &Path) -> Result<u64> {
    let disk = statvfs(folder).map_err(|error| unusable(folder, &error.into()))?;
    #[allow(clippy::useless_conversion, reason = "these are narrower on some systems")]
    Ok(u64::from(disk.blocks_available()).saturating_mul(u64::from(disk.fragment_size())))
}

#[cfg(target_os = "linux")]
fn of_file_system(folder: &Path) -> Result<Option<Risk>> {
    let status = statfs(folder).map_err(|error| unusable(folder, &error.into()))?;
    // The numbers have 32 bits, but the field may be wider.
    Ok(file_system(folder, status.filesystem_type().0 as u32))
}

#[cfg(not(target_os = "linux"))]
fn of_file_system(folder: &Path) -> Result<Option<Risk>> {
    Ok(Some(Risk {
        severity: Severity::Warning,
        subject: format!("folder {}", folder.display()),
        setting: "file system".to_owned(),
        found: "not checked".to_owned(),
        why: "on a network file system the data file can be damaged".to_owned(),
        advice: "make sure that the folder is on a disk of this machine".to_owned(),
    }))
}

/// The risks of a `file` that its first use would create or convert. `None`: the file exists and has the present
/// version. Changes nothing.
pub(super) fn before_use(file: &Path) -> Result<Option<Vec<Risk>>> {
    let folder = file.parent().unwrap_or(file);
    let exists = file.try_exists().map_err(|error| unusable(folder, &error))?;
    let (found, why, advice) = match if exists { schema::version_of(file)? } else { 0 } {
        schema::VERSION => return Ok(None),
        0 => (
            "nothing there yet".to_owned(),
            "the first start creates it".to_owned(),
            "if there is a data file already, configure its folder",
        ),
        older => (
            format!("schema {older}"),
            format!("the next start converts it to schema {}, which an older millrace cannot read", schema::VERSION),
            "stop all processes that use the folder and copy it before the next start",
        ),
    };
    let nearest = folder.ancestors().find_map(|ancestor| {
        // The last ancestor of a relative path is empty.
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
    Ok(Some([vec![first_use], of_disk(&nearest)?].concat()))
}

/// SQLite silently uses another journal where a file system lacks features that a write-ahead log needs.
fn journal(connection: &Connection, file: &Path) -> Result<Option<Risk>> {
    let mode = connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0));
    let mode = mode.map_err(sqlite("check for risks"))?;
    Ok((mode != "wal").then(|| Risk {
        severity: Severity::Severe,
        subject: format!("file {}", file.display()),
        setting: "journal_mode".to_owned(),
        found: mode,
        why: "without a write-ahead log, readers and writers block each other and jobs wait".to_owned(),
        advice: "move the folder to a file system with shared memory, such as ext4 or xfs".to_owned(),
    }))
}

fn size(connection: &Connection, file: &Path, max_size_bytes: Option<u64>) -> Result<Option<Risk>> {
    let Some(max_size_bytes) = max_size_bytes else { return Ok(None) };
    let number = |name: &str| {
        connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0)).map_err(sqlite("check for risks"))
    };
    let used_pages = number("page_count")?.saturating_sub(number("freelist_count")?);
    let used_bytes = used_pages.saturating_mul(number("page_size")?);
    Ok((used_bytes > max_size_bytes / 10 * 9).then(|| Risk {
        severity: Severity::Warning,
        subject: format!("file {}", file.display()),
        setting: "max_size".to_owned(),
        found: format!("{used_bytes} of {max_size_bytes} bytes are used"),
        why: "when the file is full, submissions are rejected".to_owned(),
        advice: "raise max_size in the URL, shorten jobs.retention, or purge dead jobs".to_owned(),
    }))
}

fn space(folder: &Path, free_bytes: u64) -> Option<Risk> {
    let severity = match free_bytes {
        ..NO_SPACE_BYTES => Severity::Severe,
        NO_SPACE_BYTES..LITTLE_SPACE_BYTES => Severity::Warning,
        _ => return None,
    };
    Some(Risk {
        severity,
        subject: format!("folder {}", folder.display()),
        setting: "disk space".to_owned(),
        found: format!("{} MiB free", free_bytes >> 20),
        why: "when the disk is full, submissions are rejected and results wait to be written".to_owned(),
        advice: "free space, or move the folder to a larger disk".to_owned(),
    })
}

/// The file systems that are a risk: their numbers in `statfs` and their names. The numbers are in `linux/magic.h` and
/// in the sources of the file systems.
#[cfg(any(target_os = "linux", test))]
fn name_of(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x0102_1997 => "9p",
        0x5346_414f | 0x6b41_4653 => "afs",
        0x00c3_6400 => "ceph",
        0xff53_4d42 => "cifs",
        0x0bd0_0bd0 => "lustre",
        0x0000_6969 => "nfs",
        0xfe53_4d42 => "smb3",
        0x0000_517b => "smbfs",
        0x6573_5546 => "fuse",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x794c_7630 => "overlay",
        _ => return None,
    })
}

#[cfg(any(target_os = "linux", test))]
fn file_system(folder: &Path, magic: u32) -> Option<Risk> {
    let name = name_of(magic)?;
    let (severity, why) = match name {
        "fuse" => (Severity::Warning, "many FUSE file systems lose locks, or writes that they have confirmed"),
        "tmpfs" | "ramfs" => (Severity::Severe, "it is in memory: a restart of the machine loses every job"),
        "overlay" => (Severity::Warning, "it is the container's own layer: removing the container loses every job"),
        _ => (Severity::Severe, "locks and shared memory do not reach other machines: the data file can be damaged"),
    };
    Some(Risk {
        severity,
        subject: format!("folder {}", folder.display()),
        setting: "file system".to_owned(),
        found: name.to_owned(),
        why: why.to_owned(),
        advice: "put the folder on a disk of this machine, such as ext4 or xfs (in a container: a volume)".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_numbers_of_file_systems_are_those_of_the_system() {
        use nix::sys::statfs::{
            AFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FUSE_SUPER_MAGIC, NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC,
            SMB_SUPER_MAGIC, TMPFS_MAGIC,
        };
        for (magic, name) in [
            (AFS_SUPER_MAGIC, Some("afs")),
            (EXT4_SUPER_MAGIC, None),
            (FUSE_SUPER_MAGIC, Some("fuse")),
            (NFS_SUPER_MAGIC, Some("nfs")),
            (OVERLAYFS_SUPER_MAGIC, Some("overlay")),
            (SMB_SUPER_MAGIC, Some("smbfs")),
            (TMPFS_MAGIC, Some("tmpfs")),
        ] {
            assert_eq!(name_of(magic.0 as u32), name);
        }
    }

    #[test]
    fn a_file_system_that_is_no_disk_of_this_machine_is_a_risk() {
        let severity = |magic: u32| file_system(Path::new("/data"), magic).map(|risk| risk.severity);
        let ext4 = 0x0000_ef53;
        assert_eq!(severity(ext4), None);
        for in_memory_or_remote in [0x0102_1994, 0x8584_58f6, 0x0000_6969, 0xff53_4d42, 0x00c3_6400, 0x0102_1997] {
            assert_eq!(severity(in_memory_or_remote), Some(Severity::Severe));
        }
        for fuse_or_overlay in [0x6573_5546, 0x794c_7630] {
            assert_eq!(severity(fuse_or_overlay), Some(Severity::Warning));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_system_of_a_folder_is_found() {
        let found = of_file_system(Path::new("/dev/shm")).unwrap().unwrap();
        assert_eq!((found.severity, found.found.as_str()), (Severity::Severe, "tmpfs"));
    }

    #[test]
    fn little_space_is_a_risk_and_almost_none_a_severe_one() {
        let severity = |mebibytes: u64| space(Path::new("/data"), mebibytes << 20).map(|risk| risk.severity);
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
