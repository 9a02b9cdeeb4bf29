//! Lists the objects of a store, one of its folders at a time.

use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore};

use super::{Blobs, Place, Role, failed, path};
use crate::{BlobRef, JobId, Result};

/// The number of folders: those of the inputs, and then those of the outputs. See [`super::key`].
pub(crate) const FOLDERS: usize = 512;

/// The most objects of a server that one call lists. A server lists them in the order of their keys, so that the next call
/// can go on. The files of a folder have no order, so a call lists all of them.
const LIST_LIMIT: usize = 5_000;

/// The old objects that one call has found.
pub(crate) struct OldBlobs {
    /// Each with its job.
    pub(crate) blobs: Vec<(JobId, BlobRef)>,
    /// The last key that was listed. `None`: the whole folder was listed.
    pub(crate) next: Option<String>,
}

impl Blobs {
    /// The objects of a folder that are older than `age` at the time `now`. Begins after the key `after`. Finds only
    /// objects whose key has the form that Millrace gives it.
    pub(crate) async fn old(
        &self,
        folder: usize,
        after: Option<&str>,
        now: Timestamp,
        age: Duration,
    ) -> Result<OldBlobs> {
        let role = if folder < FOLDERS / 2 { Role::Input } else { Role::Output };
        let prefix = path(&format!("{}/{:02x}", role.folder(), folder % (FOLDERS / 2)))?;
        let mut listed = match after {
            Some(after) => self.store.list_with_offset(Some(&prefix), &path(after)?),
            None => self.store.list(Some(&prefix)),
        };
        let newest = now.as_millisecond().saturating_sub(crate::clock::milliseconds_of(age));
        let (mut count, mut blobs) = (0, Vec::new());
        while let Some(object) = listed.next().await {
            let ObjectMeta { location, last_modified, .. } =
                object.map_err(|error| failed("list", prefix.as_ref(), error))?;
            if last_modified.timestamp_millis() < newest {
                blobs.extend(job_of(&location).map(|id| (id, reference(&location))));
            }
            count += 1;
            if count == LIST_LIMIT && self.place == Place::Server {
                return Ok(OldBlobs { blobs, next: Some(location.to_string()) });
            }
        }
        Ok(OldBlobs { blobs, next: None })
    }

    /// Whether there is a store.
    pub(crate) fn is_somewhere(&self) -> bool {
        self.place != Place::Nowhere
    }
}

fn reference(location: &ObjectPath) -> BlobRef {
    BlobRef { key: location.to_string(), size_bytes: None, sha256: None, is_borrowed: false }
}

/// The job of a key that [`super::key`] has made. `None`: another program has chosen the key.
fn job_of(location: &ObjectPath) -> Option<JobId> {
    let mut parts = location.as_ref().split('/');
    let (_role, folder, file) = (parts.next()?, parts.next()?, parts.next()?);
    let (id, name) = file.rsplit_once('.')?;
    let is_name = uuid::Uuid::try_parse(name).is_ok_and(|id| id.get_version_num() == 7)
        || name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    (parts.next().is_none() && is_name && name.ends_with(folder)).then(|| id.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::super::{digest, key};
    use super::*;

    #[test]
    fn the_job_of_a_key_is_found_and_other_keys_have_none() {
        let id: JobId = "a.b~c:d-1".parse().unwrap();
        for name in [uuid::Uuid::now_v7().to_string(), digest(b"input")] {
            for role in [Role::Input, Role::Output] {
                let key = key(role, &id, &name);
                assert_eq!(job_of(&path(&key).unwrap()), Some(id.clone()), "{key}");
                assert_eq!(path(&key).unwrap().to_string(), key);
            }
        }
        for key in [
            "input/00/photo.jpg",
            "input/00/job.00000000-0000-4000-8000-000000000000",
            "input/01/job.01890a5d-ac96-774b-bcce-b302099a8000",
            "input/00/more/job.01890a5d-ac96-774b-bcce-b302099a8000",
            "input/00/01890a5d-ac96-774b-bcce-b302099a8000",
        ] {
            assert_eq!(job_of(&path(key).unwrap()), None, "{key}");
        }
    }
}
