//! A real folder: what stands in it after every verb, and after what crashes leave behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc;

use futures::TryStreamExt as _;
use tempfile::TempDir;

use crate::http::roots::Roots;
use crate::model::asset::AssetIndex;
use crate::model::digest::Crc64;
use crate::store::BrokenSource;
use crate::store::Identity;
use crate::store::Place;
use crate::store::Store;
use crate::store::StoreErrorKind::*;
use crate::units::Span;

use super::*;

const VIDEO: &[u8] = b"ftypisom moov mdat";

async fn folder(more: &str) -> (TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let section = format!("[fs]\npath = '{}'\n{more}", root.path().display());
    let config = toml::from_str(&section).unwrap();
    let http = Store::http_client(Span::from_secs(1), &Roots::load(&[]).unwrap()).unwrap();
    let connected = Store::connect("disk".parse().unwrap(), &config, &|_| None, http).await;
    (root, connected.unwrap())
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

fn identity(nonce: &str) -> Identity {
    Identity {
        provider: "evolink".parse().unwrap(),
        task_id: "task-1".parse().unwrap(),
        index: AssetIndex(0),
        nonce: nonce.to_owned(),
    }
}

fn object<'a>(key: &'a ObjectKey, identity: &'a Identity) -> NewObject<'a> {
    NewObject {
        key,
        content_type: "video/mp4",
        identity,
    }
}

fn streamed(frames: &[&'static [u8]]) -> PartBody {
    let frames: Vec<_> = frames
        .iter()
        .map(|frame| Ok(Bytes::from_static(frame)))
        .collect();
    let length = frames.iter().flatten().map(Bytes::len).sum::<usize>();
    PartBody::Stream {
        length: u64::try_from(length).unwrap(),
        frames: stream::iter(frames).boxed(),
    }
}

fn slot(number: u32, offset: u64) -> PartSlot {
    PartSlot {
        number: PartNumber(number),
        offset,
    }
}

fn total() -> Total {
    Total {
        length: u64::try_from(VIDEO.len()).unwrap(),
        crc64nvme: Crc64::of(VIDEO),
    }
}

async fn begin(store: &Store, key: &ObjectKey, nonce: &str) -> UploadId {
    store.begin(&object(key, &identity(nonce))).await.unwrap()
}

/// Both parts, the second one first.
async fn write(store: &Store, key: &ObjectKey, upload: &UploadId) {
    let tail = streamed(&[&VIDEO[7..10], &VIDEO[10..]]);
    let head = PartBody::Filled {
        frames: vec![Bytes::from_static(&VIDEO[..7])],
        crc64nvme: Crc64::of(&VIDEO[..7]),
    };
    let (tail, head) = futures::join!(
        store.put_part(key, upload, slot(2, 7), tail),
        store.put_part(key, upload, slot(1, 0), head),
    );
    assert_eq!(
        tail.unwrap().etag.0,
        format!("\"{}\"", Crc64::of(&VIDEO[7..]))
    );
    assert_eq!(
        head.unwrap().etag.0,
        format!("\"{}\"", Crc64::of(&VIDEO[..7]))
    );
}

async fn finish(store: &Store, key: &ObjectKey, upload: &UploadId) -> Result<Written, StoreError> {
    let identity = identity("any");
    store
        .finish(&object(key, &identity), upload, &[], &total())
        .await
}

/// All files under `folder`, by name.
fn files(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            names.extend(files(&entry.path()));
        } else {
            names.push(entry.file_name().into_string().unwrap());
        }
    }
    names.sort();
    names
}

#[tokio::test]
async fn parts_become_one_file_that_is_hidden_until_it_is_whole() {
    for more in ["mode = '0644'", "mode = '0644'\nfsync = false"] {
        let (root, store) = folder(more).await;
        let key = key("2026/03/a.mp4");
        assert_eq!(store.find(&key).await, Ok(None));
        let upload = begin(&store, &key, "n1").await;
        assert_eq!(upload.0, "2026/03/.a.mp4.n1.partial");
        write(&store, &key, &upload).await;
        assert_eq!(
            store.parts(&key, &upload).await,
            Ok(StoredParts::AsRecorded)
        );
        assert_eq!(files(root.path()), [".a.mp4.n1.partial"]);
        assert_eq!(store.find(&key).await, Ok(None));

        assert_eq!(finish(&store, &key, &upload).await, Ok(Written::default()));
        assert_eq!(files(root.path()), ["a.mp4"]);
        let path = root.path().join("2026/03/a.mp4");
        assert_eq!(fs::read(&path).unwrap(), VIDEO);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o644
        );
        let standing = store.find(&key).await.unwrap().unwrap();
        assert_eq!(standing.length, total().length);
        assert_eq!(standing.crc64nvme, Some(total().crc64nvme));
        let frames = store
            .read(&key)
            .await
            .unwrap()
            .try_collect::<Vec<_>>()
            .await;
        assert_eq!(frames.unwrap().concat(), VIDEO);
        assert_eq!(
            store.locate(&key),
            format!("file://{}", path.canonicalize().unwrap().display())
        );
    }
}

#[tokio::test]
async fn of_two_writers_one_wins_and_nothing_is_overwritten() {
    let (root, store) = folder("").await;
    let key = key("a.mp4");
    let (first, second) = (
        begin(&store, &key, "n1").await,
        begin(&store, &key, "n2").await,
    );
    write(&store, &key, &first).await;
    write(&store, &key, &second).await;
    let (one, two) = futures::join!(finish(&store, &key, &first), finish(&store, &key, &second));
    let mut outcomes = [one, two];
    outcomes.sort_by_key(Result::is_err);
    let [won, lost] = outcomes;
    assert!(won.is_ok());
    assert_eq!(lost.unwrap_err().kind, Exists);

    let other = streamed(&[b"something else"]);
    let put = store.put(&object(&key, &identity("n3")), other).await;
    assert_eq!(put.unwrap_err().kind, Exists);
    assert_eq!(fs::read(root.path().join("a.mp4")).unwrap(), VIDEO);
    // The loser's partial file is its own to abort.
    assert_eq!(files(root.path()).len(), 2);
    for upload in store.open_uploads(&key).await.unwrap() {
        assert!(upload.initiated.is_some());
        store.abort(&key, &upload.id).await.unwrap();
    }
    assert_eq!(files(root.path()), ["a.mp4"]);
}

#[tokio::test]
async fn what_a_crash_leaves_is_found_and_taken_up_or_removed() {
    let (root, store) = folder("").await;
    let key = key("d/a.mp4");
    let lost = begin(&store, &key, "n1").await;
    // The upload's name was not written down before the crash, so it is begun again under the same nonce.
    let again = begin(&store, &key, "n1").await;
    assert_eq!(again.0, "d/.a.mp4.n1-1.partial");
    let mut open = store.open_uploads(&key).await.unwrap();
    open.sort_by(|one, other| one.id.0.cmp(&other.id.0));
    let ids: Vec<_> = open.into_iter().map(|upload| upload.id).collect();
    assert_eq!(ids, [again.clone(), lost.clone()]);
    store.abort(&key, &lost).await.unwrap();
    store.abort(&key, &lost).await.unwrap();
    let gone = store.parts(&key, &lost).await.unwrap_err();
    assert_eq!(gone.kind, UploadGone);

    // A crash between the link and the removal of the partial file.
    write(&store, &key, &again).await;
    let path = root.path().join("d/a.mp4");
    fs::hard_link(root.path().join(&again.0), &path).unwrap();
    let late = store
        .put_part(&key, &again, slot(1, 0), streamed(&[b"late"]))
        .await;
    assert_eq!(late.unwrap_err().kind, UploadGone);
    assert_eq!(fs::read(&path).unwrap(), VIDEO);
    assert_eq!(finish(&store, &key, &again).await, Ok(Written::default()));
    assert_eq!(files(root.path()), ["a.mp4"]);
    let gone = finish(&store, &key, &again).await.unwrap_err();
    assert_eq!(gone.kind, UploadGone);
}

#[tokio::test]
async fn a_file_that_is_not_whole_gets_no_name() {
    let (root, store) = folder("").await;
    let key = key("a.mp4");
    let upload = begin(&store, &key, "n1").await;
    let short = streamed(&[&VIDEO[..7]]);
    store
        .put_part(&key, &upload, slot(1, 0), short)
        .await
        .unwrap();
    assert_eq!(
        finish(&store, &key, &upload).await.unwrap_err().kind,
        Conflict
    );

    let broken = || PartBody::Stream {
        length: 9,
        frames: stream::iter([
            Ok(Bytes::from_static(b"mdat")),
            Err(BrokenSource::new("reset by the CDN")),
        ])
        .boxed(),
    };
    let error = store
        .put_part(&key, &upload, slot(2, 7), broken())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Source);
    assert!(error.to_string().contains("reset by the CDN"), "{error}");
    store.abort(&key, &upload).await.unwrap();

    let put = store.put(&object(&key, &identity("n2")), broken()).await;
    assert_eq!(put.unwrap_err().kind, Source);
    assert!(files(root.path()).is_empty());
}

#[tokio::test]
async fn partial_files_belong_to_exactly_one_key() {
    let (_root, store) = folder("").await;
    let (short, long) = (key("a"), key("a.n1"));
    let upload = begin(&store, &long, "n2").await;
    assert_eq!(store.open_uploads(&short).await, Ok(Vec::new()));
    store.abort(&short, &upload).await.unwrap();
    assert_eq!(store.open_uploads(&long).await.unwrap().len(), 1);

    let name = "ä".repeat(100);
    let (one, other) = (key(&format!("{name}1")), key(&format!("{name}2")));
    let upload = begin(&store, &one, "n1").await;
    assert_eq!(store.open_uploads(&one).await.unwrap()[0].id, upload);
    assert_eq!(store.open_uploads(&other).await, Ok(Vec::new()));
    let too_long = key(&"x".repeat(256));
    let error = store
        .begin(&object(&too_long, &identity("n")))
        .await
        .unwrap_err();
    assert_eq!(error.kind, Rejected);
}

#[tokio::test]
async fn nothing_leads_out_of_the_folder() {
    let (root, store) = folder("").await;
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
    let away = key("out/new/a.mp4");
    let error = store
        .begin(&object(&away, &identity("n1")))
        .await
        .unwrap_err();
    assert_eq!(error.kind, Rejected);
    assert!(files(outside.path()).is_empty() && !outside.path().join("new").exists());
    fs::write(outside.path().join("a.mp4"), VIDEO).unwrap();
    assert_eq!(
        store.find(&key("out/a.mp4")).await.unwrap_err().kind,
        Rejected
    );

    let link = root.path().join("a.mp4");
    std::os::unix::fs::symlink(outside.path().join("a.mp4"), link).unwrap();
    assert_eq!(store.find(&key("a.mp4")).await.unwrap_err().kind, Rejected);
    assert_eq!(
        store.read(&key("a.mp4")).await.err().unwrap().kind,
        Rejected
    );

    // An upload's name comes back from the manifest: it must not name other files.
    fs::write(outside.path().join(".b.n.partial"), "").unwrap();
    for forged in [
        "../.b.n.partial",
        "out/.b.n.partial",
        ".b.n.x.partial",
        "b",
        "",
    ] {
        let upload = UploadId(forged.to_owned());
        let error = store.parts(&key("b"), &upload).await.unwrap_err();
        assert_eq!(error.kind, UploadGone, "{forged}");
        assert_eq!(store.abort(&key("b"), &upload).await, Ok(()));
    }
    assert_eq!(files(outside.path()).len(), 2);
}

#[tokio::test]
async fn a_key_below_a_file_is_rejected_and_a_folder_that_is_gone_blocks() {
    let (root, store) = folder("").await;
    fs::write(root.path().join("file"), "x").unwrap();
    let below = key("file/a.mp4");
    let error = store
        .begin(&object(&below, &identity("n")))
        .await
        .unwrap_err();
    assert_eq!(error.kind, Rejected);
    assert_eq!(store.find(&below).await.unwrap_err().kind, Rejected);
    fs::create_dir(root.path().join("folder")).unwrap();
    assert_eq!(store.find(&key("folder")).await.unwrap_err().kind, Rejected);

    let path = root.path().to_owned();
    drop(root);
    assert!(!path.exists());
    let error = store
        .begin(&object(&key("a"), &identity("n")))
        .await
        .unwrap_err();
    assert_eq!(error.kind, Blocked);
    assert!(
        error
            .to_string()
            .starts_with("destination disk fails at fs:begin on "),
        "{error}"
    );
    assert_eq!(store.find(&key("a")).await.unwrap_err().kind, Blocked);
}

/// The owner of finished files may not write to them either.
#[tokio::test]
async fn a_file_that_got_its_last_permissions_and_no_name_is_taken_up() {
    let (root, store) = folder("mode = '0440'").await;
    let key = key("a.mp4");
    let upload = begin(&store, &key, "n1").await;
    write(&store, &key, &upload).await;
    let partial = root.path().join(&upload.0);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o440)).unwrap();
    let taken = store.parts(&key, &upload).await;
    assert_eq!(taken, Ok(StoredParts::AsRecorded));
    assert_eq!(mode(&partial), 0o600);

    fs::set_permissions(&partial, fs::Permissions::from_mode(0o440)).unwrap();
    assert_eq!(finish(&store, &key, &upload).await, Ok(Written::default()));
    assert_eq!(mode(&root.path().join("a.mp4")), 0o440);
}

#[tokio::test]
async fn nothing_is_written_where_a_disk_was_mounted_that_is_gone() {
    assert!(tree::is_mounted(Path::new("/proc")).unwrap());
    let (root, store) = folder("").await;
    let path = root.path().canonicalize().unwrap();
    assert!(!tree::is_mounted(&path).unwrap());
    let found = Tree::at(&path, folder_of(&store).tree.rules).unwrap();
    let gone = Folder {
        tree: Arc::new(Tree {
            is_mounted: true,
            ..found
        }),
        ..folder_of(&store).clone()
    };
    let (key, identity) = (key("d/a.mp4"), identity("n1"));
    let error = gone.begin(&object(&key, &identity)).await.unwrap_err();
    assert_eq!(error.kind, Blocked);
    assert!(
        error
            .to_string()
            .contains("the disk that was mounted there is gone"),
        "{error}"
    );
    assert!(!path.join("d").exists());
    assert_eq!(gone.find(&key).await.unwrap_err().kind, Blocked);
}

/// The folder behind `store`.
fn folder_of(store: &Store) -> &Folder {
    match &store.0.place {
        Place::Folder(folder) => folder,
        Place::Bucket(_) => panic!("no folder"),
    }
}

/// A call that ends when somebody says so, or goes away who could.
async fn call(
    folder: &Folder,
    key: &ObjectKey,
    disk: &Arc<Mutex<mpsc::Receiver<()>>>,
) -> Result<(), StoreError> {
    let disk = Arc::clone(disk);
    let work = move |_: &Tree| {
        // The others wait for the lock.
        disk.lock().unwrap().recv().ok();
        Ok(())
    };
    folder.on_disk(Verb::Find, key, work).await
}

async fn all_places_are_taken(folder: &Folder) {
    while folder.calls.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_ends_every_verb_and_keeps_a_bounded_number_of_threads() {
    let (_root, store) = folder("").await;
    let (folder, key) = (folder_of(&store), key("a.mp4"));
    let upload = begin(&store, &key, "n1").await;
    let (hangs, disk) = mpsc::sync_channel(1);
    let disk = Arc::new(Mutex::new(disk));
    let calls = (0..2 * CALLS_MAX).map(|_| call(folder, &key, &disk));
    let calls = futures::future::join_all(calls);
    let passing = async {
        all_places_are_taken(folder).await;
        tokio::time::advance(SMALL_VERB_TIMEOUT.as_duration()).await;
    };
    let (ended, ()) = futures::join!(calls, passing);
    for error in ended.into_iter().map(Result::unwrap_err) {
        // As of a bucket that does not answer, so that its gate closes.
        assert_eq!((error.kind, error.status), (Transient, None));
        let told = format!(
            "destination disk fails at fs:find on {}: no answer within 30 s: its disk, or the server behind it, hangs",
            folder.place(&key)
        );
        assert_eq!(error.to_string(), told);
    }
    // The threads are still there, and nobody else gets one.
    let finished = finish(&store, &key, &upload);
    let passing = tokio::time::advance(SMALL_VERB_TIMEOUT.as_duration());
    let (finished, ()) = futures::join!(finished, passing);
    assert_eq!(finished.unwrap_err().kind, Ambiguous);

    drop(hangs);
    let all = u32::try_from(CALLS_MAX).unwrap();
    drop(folder.calls.acquire_many(all).await);
    // Nothing is left, and those that came too late for a thread were never begun.
    assert_eq!(Arc::strong_count(&disk), 1);
    assert_eq!(store.find(&key).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_slow_and_does_not_hang_is_waited_for() {
    let (_root, store) = folder("").await;
    let (folder, key) = (folder_of(&store), key("a.mp4"));
    let (ends_one, disk) = mpsc::sync_channel(1);
    let disk = Arc::new(Mutex::new(disk));
    let first = (0..CALLS_MAX).map(|_| call(folder, &key, &disk));
    let first = futures::future::join_all(first);
    let queued = (0..3).map(|_| call(folder, &key, &disk));
    let queued = futures::future::join_all(queued);
    let passing = async {
        all_places_are_taken(folder).await;
        for ended in 1..=3 {
            tokio::time::advance(SMALL_VERB_TIMEOUT.as_duration() * 2 / 5).await;
            ends_one.send(()).unwrap();
            while folder.ended.load(Ordering::Relaxed) < ended {
                tokio::task::yield_now().await;
            }
        }
        drop(ends_one);
    };
    let (_, queued, ()) = futures::join!(first, queued, passing);
    assert_eq!(queued, [Ok(()), Ok(()), Ok(())]);
}

#[tokio::test]
async fn a_file_is_digested_stretch_by_stretch() {
    let (root, store) = folder("").await;
    let stretch = READ_BYTES * usize::try_from(tree::STRETCH_READS).unwrap();
    for length in [0, 1, stretch - 1, stretch, 2 * stretch + 7] {
        let bytes: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[1]).collect();
        fs::write(root.path().join("a.mp4"), &bytes).unwrap();
        let standing = store.find(&key("a.mp4")).await.unwrap().unwrap();
        assert_eq!(standing.length, u64::try_from(length).unwrap());
        assert_eq!(standing.crc64nvme, Some(Crc64::of(&bytes)));
    }
}

#[tokio::test]
async fn a_full_disk_blocks_before_anything_is_written() {
    let (root, store) = folder("free_min = '4096 TiB'").await;
    let key = key("a.mp4");
    let begun = store
        .begin(&object(&key, &identity("n1")))
        .await
        .unwrap_err();
    assert_eq!(begun.kind, Blocked);
    assert!(
        begun.to_string().contains("4096 TiB have to stay free"),
        "{begun}"
    );
    assert!(files(root.path()).is_empty());

    let (_root, store) = folder("free_min = '1 B'").await;
    let upload = begin(&store, &key, "n1").await;
    let huge = PartBody::Stream {
        length: u64::MAX,
        frames: stream::empty().boxed(),
    };
    let part = store.put_part(&key, &upload, slot(1, 0), huge).await;
    assert_eq!(part.unwrap_err().kind, Blocked);
    write(&store, &key, &upload).await;
    assert!(finish(&store, &key, &upload).await.is_ok());
}

#[tokio::test]
async fn a_probe_leaves_nothing_behind() {
    let (root, store) = folder("").await;
    let steps = store.probe("n1").await;
    for step in &steps {
        assert!(step.outcome.is_ok(), "{step:?}");
    }
    let said = |name: &str| {
        let step = steps.iter().find(|step| step.name == name);
        step.unwrap().outcome.clone().unwrap()
    };
    assert_eq!(said("write over it at once"), "refused, as it must be");
    assert_eq!(said("write over it in parts"), "refused, as it must be");
    assert!(said("find the object").contains("its checksum is right"));
    assert!(files(root.path()).is_empty());
}
