//! Each row of what goes wrong at stores, end to end: no wrong object counts as archived, no upload stays open, nobody
//! is left in the dark, and what can be archived is.
//!
//! `rows` runs tables of misbehaving stores; each test here is one row of what is known to go wrong, with all the
//! cases that it has: filled and passed-through bodies, one request and parts.

mod odd;
mod rows;

use std::time::Duration;

use reelvault::manifest::row::TaskRecord;
use reelvault::model::asset::AssetState;
use reelvault::simulator::bucket::Bodies;
use reelvault::simulator::bucket::Conditions;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::simulator::script::FileFault;
use reelvault::simulator::script::Rule;
use reelvault::units::ByteSize;
use reelvault::units::Span;

use crate::faults::Kind;
use crate::faults::MANY;
use crate::faults::MENDED;
use crate::faults::PARTS;
use crate::faults::SMALL;
use crate::faults::all_say_why;
use crate::faults::assert_told;
use crate::faults::each;
use crate::faults::error_of;
use crate::faults::stopped_midway;
use crate::store_failures::rows::Broken;
use crate::store_failures::rows::assert_waits;
use crate::store_failures::rows::check_archived;
use crate::store_failures::rows::check_archived_with;
use crate::store_failures::rows::check_waits;
use crate::store_failures::rows::row;
use crate::store_failures::rows::run_until_doubted;
use crate::world::Log;
use crate::world::Plan;
use crate::world::World;

/// Some bytes into a request's body.
const SOME: u64 = 100_000;

#[tokio::test]
async fn busy_503_500_and_resets() {
    use Operation::*;
    let slow = |operation| Fault::new(operation, Effect::SLOW_DOWN);
    let broken = |operation, after| Fault::new(operation, Effect::Break(after));
    let codes = [
        (500, "InternalError"),
        (503, "ServiceUnavailable"),
        (429, "TooManyRequests"),
        (502, ""),
        (504, ""),
        (499, "ClientDisconnect"),
    ];
    let with_each = |operation, codes: &[(u16, &'static str)]| -> Vec<Fault> {
        let answer = |(status, code): &(u16, &'static str)| {
            Fault::new(operation, Effect::Answer(*status, code))
        };
        codes.iter().map(answer).collect()
    };
    check_archived(
        &Kind::EACH,
        vec![
            row("busy at put", SMALL, [slow(PutObject)]),
            row("busy at create", PARTS, [slow(CreateMultipartUpload)]),
            row("busy at a part", PARTS, [slow(UploadPart).from(2).times(2)]),
            row("busy at all parts", PARTS, [slow(UploadPart).times(3)]),
            row("busy at complete", PARTS, [slow(CompleteMultipartUpload)]),
            row("busy at head", PARTS, [slow(HeadObject)]),
            row("busy at the second head", SMALL, [slow(HeadObject).from(2)]),
            row("each code at put", SMALL, with_each(PutObject, &codes[..2])),
            row("others at put", SMALL, with_each(PutObject, &codes[2..4])),
            row("each code at parts", PARTS, with_each(UploadPart, &codes)),
            row(
                "each code at complete",
                PARTS,
                with_each(CompleteMultipartUpload, &codes[..2]),
            ),
            row(
                "others at complete",
                PARTS,
                with_each(CompleteMultipartUpload, &codes[4..]),
            ),
            row("broken in a put", SMALL, [broken(PutObject, SOME)]),
            row(
                "broken in parts",
                PARTS,
                [broken(UploadPart, SOME).times(2)],
            ),
            row(
                "broken at create",
                PARTS,
                [broken(CreateMultipartUpload, 0)],
            ),
            row(
                "broken at complete",
                PARTS,
                [broken(CompleteMultipartUpload, 0)],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn more_at_once_than_the_store_bears() {
    for kind in Kind::EACH {
        let mut plan = kind.plan(MANY);
        plan.extra.push_str("concurrent = 3\nparts_ahead = 4\n");
        let world = World::new(plan).await;
        world.bucket.limit_at_once(Some(2));
        world.submit(3).await;
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
    }
}

#[tokio::test]
async fn complete_is_ambiguous() {
    use Operation::*;
    let lost = |operation| Fault::new(operation, Effect::LoseAnswer);
    let error = |operation| Fault::new(operation, Effect::DoneButAnswer(500, "InternalError"));
    let empty = |operation| Fault::new(operation, Effect::DoneButSay(200, ""));
    let no_head = || Fault::new(HeadObject, Effect::SLOW_DOWN).from(2);
    check_archived(
        &Kind::ALL,
        vec![
            row("put, no answer", SMALL, [lost(PutObject)]),
            row("create, no answer", PARTS, [lost(CreateMultipartUpload)]),
            row("a part, no answer", PARTS, [lost(UploadPart).from(2)]),
            row("no answer", PARTS, [lost(CompleteMultipartUpload)]),
            row("put, 500", SMALL, [error(PutObject)]),
            row("create, 500", PARTS, [error(CreateMultipartUpload)]),
            row("500", PARTS, [error(CompleteMultipartUpload)]),
            row("put, empty", SMALL, [empty(PutObject)]),
            row("a part, empty", PARTS, [empty(UploadPart)]),
            row(
                "200 with an empty body",
                PARTS,
                [empty(CompleteMultipartUpload)],
            ),
            row(
                "200 with an error",
                PARTS,
                [Fault::new(CompleteMultipartUpload, Effect::ErrorIn200)],
            ),
            row(
                "no answer, no head",
                PARTS,
                [lost(CompleteMultipartUpload), no_head()],
            ),
            row(
                "put, no answer, no head",
                SMALL,
                [lost(PutObject), no_head()],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn no_such_upload_on_resume() {
    use Operation::*;
    let gone = |operation| Fault::new(operation, Effect::NO_SUCH_UPLOAD);
    let conflict = |operation| Fault::new(operation, Effect::CONFLICT);
    let taken = |operation| Fault::new(operation, Effect::PRECONDITION_FAILED);
    check_archived(
        &Kind::ALL,
        vec![
            row("at a part", PARTS, [gone(UploadPart).from(2)]),
            row("at complete", PARTS, [gone(CompleteMultipartUpload)]),
            row(
                "conflict at complete",
                PARTS,
                [conflict(CompleteMultipartUpload)],
            ),
            row("conflict at put", SMALL, [conflict(PutObject)]),
            row("412 without an object at put", SMALL, [taken(PutObject)]),
            row(
                "412 without an object",
                PARTS,
                [taken(CompleteMultipartUpload)],
            ),
        ],
    )
    .await;
    for kind in Kind::ALL {
        // Gone in truth, or only for one request; in the last case the upload is taken up again.
        let cases = [(None, 2), (Some(ListParts), 2), (Some(UploadPart), 1)];
        let runs = cases.map(|(liar, begun)| async move {
            let world = stopped_midway(kind.plan(MANY)).await;
            match liar {
                Some(operation) => world.bucket.plant(gone(operation)),
                None => world.bucket.end_uploads(),
            }
            let records = world.run_to_the_end().await;
            println!("{liar:?} at {kind:?}");
            world.assert_all_archived(&records);
            assert_eq!(world.bucket.faults_waiting(), 0);
            assert_eq!(world.bucket.count(CreateMultipartUpload), begun);
        });
        futures::future::join_all(runs).await;
    }
}

#[tokio::test]
async fn entity_too_small() {
    check_waits(&[Broken {
        operation: Operation::CompleteMultipartUpload,
        size: PARTS,
        effect: Effect::Answer(400, "EntityTooSmall"),
        errors: &["400 EntityTooSmall to s3:CompleteMultipartUpload"],
    }])
    .await;
}

#[tokio::test]
async fn expired_or_rotated_credentials() {
    use Operation::*;
    let broken = |operation, size, status, code, errors| Broken {
        operation,
        size,
        effect: Effect::Answer(status, code),
        errors,
    };
    check_waits(&[
        broken(
            PutObject,
            SMALL,
            400,
            "ExpiredToken",
            &["400 ExpiredToken", "have run out"],
        ),
        broken(
            PutObject,
            SMALL,
            403,
            "InvalidAccessKeyId",
            &[
                "403 InvalidAccessKeyId",
                "the access key or its secret is wrong",
            ],
        ),
        broken(
            CreateMultipartUpload,
            PARTS,
            403,
            "SignatureDoesNotMatch",
            &[
                "403 SignatureDoesNotMatch",
                "the access key or its secret is wrong",
            ],
        ),
        broken(
            UploadPart,
            PARTS,
            400,
            "ExpiredToken",
            &["400 ExpiredToken", "have run out"],
        ),
        broken(
            CompleteMultipartUpload,
            PARTS,
            403,
            "InvalidAccessKeyId",
            &["403 InvalidAccessKeyId"],
        ),
        broken(
            HeadObject,
            SMALL,
            400,
            "",
            &["answers 400 to s3:HeadObject"],
        ),
        broken(
            PutObject,
            SMALL,
            403,
            "RequestTimeTooSkewed",
            &["set this machine's clock"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn access_denied_no_bucket_or_quota() {
    use Operation::*;
    let broken = |operation, size, effect, errors| Broken {
        operation,
        size,
        effect,
        errors,
    };
    let no_bucket = Effect::Answer(404, "NoSuchBucket");
    let full = Effect::Answer(403, "QuotaExceeded");
    let denied = Effect::ACCESS_DENIED;
    check_waits(&[
        broken(
            PutObject,
            SMALL,
            denied.clone(),
            &[
                "403 AccessDenied to s3:PutObject on videos",
                "needs s3:PutObject",
            ],
        ),
        broken(
            CreateMultipartUpload,
            PARTS,
            denied.clone(),
            &[
                "403 AccessDenied to s3:CreateMultipartUpload",
                "needs s3:PutObject",
            ],
        ),
        broken(
            UploadPart,
            PARTS,
            denied.clone(),
            &["403 AccessDenied to s3:UploadPart"],
        ),
        broken(
            CompleteMultipartUpload,
            PARTS,
            denied.clone(),
            &["403 AccessDenied to s3:CompleteMultipartUpload"],
        ),
        broken(
            HeadObject,
            SMALL,
            denied,
            &["answers 403 to s3:HeadObject", "s3:GetObject"],
        ),
        broken(
            PutObject,
            SMALL,
            no_bucket.clone(),
            &["404 NoSuchBucket", "create the bucket"],
        ),
        broken(
            CreateMultipartUpload,
            PARTS,
            no_bucket,
            &["404 NoSuchBucket", "create the bucket"],
        ),
        broken(PutObject, SMALL, full.clone(), &["403 QuotaExceeded"]),
        broken(UploadPart, PARTS, full, &["403 QuotaExceeded"]),
        broken(
            UploadPart,
            PARTS,
            Effect::Answer(507, "XMinioStorageFull"),
            &["507 XMinioStorageFull"],
        ),
    ])
    .await;
    // A store that really is full, in the middle of a body.
    for (kind, size) in each(&Kind::EACH) {
        let mut plan = kind.plan(size);
        plan.bucket.bodies = Bodies::Kept(ByteSize::bytes(size.as_u64() - 1));
        let world = World::new(plan).await;
        world.submit(1).await;
        let records = world.run_until(all_say_why).await;
        assert_waits(&records, &["403 QuotaExceeded"]);
        assert_eq!(world.bucket.objects(), []);
    }
}

#[tokio::test]
async fn wrong_region() {
    use Operation::*;
    let told = &["set destination.main.s3.region = \"eu-west-1\""];
    let broken = |operation, size, status, code| Broken {
        operation,
        size,
        effect: Effect::Elsewhere(status, code, "eu-west-1"),
        errors: told,
    };
    check_waits(&[
        broken(HeadObject, SMALL, 301, ""),
        broken(HeadObject, PARTS, 400, ""),
        broken(PutObject, SMALL, 301, "PermanentRedirect"),
        broken(CreateMultipartUpload, PARTS, 301, "PermanentRedirect"),
        broken(PutObject, SMALL, 400, "AuthorizationHeaderMalformed"),
        broken(
            CreateMultipartUpload,
            PARTS,
            400,
            "IllegalLocationConstraintException",
        ),
    ])
    .await;
}

#[tokio::test]
async fn overwritten_or_deleted_by_others() {
    for (kind, size) in each(&Kind::ALL) {
        // Theirs stands there before ours comes.
        let log = Log::default();
        let _listening = log.listen();
        let theirs = World::new(kind.plan(size)).await;
        let ids = theirs.submit(1).await;
        theirs.run_to_the_end().await;
        let before = theirs.bucket.objects();
        let change = Rule::file(FileFault::Change(None)).task(&ids[0]);
        theirs.simulator.plant(change);
        let ours = theirs.beside().await;
        ours.announce(&ids).await;
        run_until_doubted(&ours, &log, "the key is taken by another object").await;
        assert_eq!(theirs.bucket.objects(), before);

        // Deleted between the write and the look at it.
        let world = World::new(kind.plan(size)).await;
        // Not every store is trusted to heed the condition of a completion: it is looked once more before.
        let looks_again = matches!(kind, Kind::Generic) && size == PARTS;
        let after = if looks_again { 3 } else { 2 };
        let late = Effect::Delay(Span::from_millis(100));
        let late = Fault::new(Operation::HeadObject, late).from(after);
        world.bucket.plant(late);
        world.submit(1).await;
        let (records, ()) = tokio::join!(world.run_to_the_end(), async {
            world
                .bucket
                .reached(Operation::HeadObject, after.into())
                .await;
            let objects = world.bucket.objects();
            assert!(world.bucket.remove(&objects[0].key));
        });
        world.assert_all_archived(&records);
    }
    for kind in Kind::ALL {
        // Theirs comes while ours is under way.
        let log = Log::default();
        let _listening = log.listen();
        let world = stopped_midway(kind.plan(MANY)).await;
        let key = world.bucket.open_uploads()[0].key.clone();
        world
            .bucket
            .replace(&key, b"theirs".as_slice().into())
            .await;
        run_until_doubted(&world, &log, "the key is taken by another object").await;
        assert_eq!(world.bucket.bytes(&key).unwrap(), b"theirs");
    }
}

#[tokio::test]
async fn if_none_match_ignored_or_unknown() {
    for (kind, size) in each(&Kind::EACH) {
        let log = Log::default();
        let _listening = log.listen();
        let mut plan = kind.plan(size);
        plan.bucket.quirks.conditions = Conditions::Unsupported;
        let world = World::new(plan).await;
        world.submit(1).await;
        let records = world.run_until(all_say_why).await;
        assert_waits(&records, &["501", "set quirks = \"plain\""]);
        assert_told(&log, "set quirks = \"plain\"");
        let before = format!("quirks = {:?}", kind.name());
        let world = world.reconfigured(&before, "quirks = \"plain\"").await;
        world.pass(MENDED);
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
    }
    for (kind, size) in each(&Kind::EACH) {
        let log = Log::default();
        let _listening = log.listen();
        let mut plan = kind.plan(size);
        plan.bucket.quirks.conditions = Conditions::Ignored;
        let world = World::new(plan).await;
        let ids = world.submit(1).await;
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
        let key = world.bucket.objects()[0].key.clone();
        world
            .bucket
            .replace(&key, b"theirs".as_slice().into())
            .await;
        let second = world.beside().await;
        second.announce(&ids).await;
        run_until_doubted(&second, &log, "the key is taken by another object").await;
        assert_eq!(world.bucket.bytes(&key).unwrap(), b"theirs");
    }
}

/// Takes as long as a part may.
#[tokio::test]
async fn store_stops_reading_a_part() {
    use Operation::*;
    let hang = |operation, after| Fault::new(operation, Effect::Hang(after));
    let patient = |kind: Kind, size| Plan {
        patience: Duration::from_mins(2),
        ..kind.plan(size)
    };
    // Both at once: there is nothing to do but to wait.
    let runs = Kind::EACH.map(|kind| {
        let mut rows = vec![
            row("in a put", SMALL, [hang(PutObject, SOME)]),
            row(
                "in the second part",
                PARTS,
                [hang(UploadPart, SOME).from(2)],
            ),
            row("before the answer", PARTS, [hang(UploadPart, u64::MAX)]),
            row("at create", PARTS, [hang(CreateMultipartUpload, 0)]),
        ];
        if matches!(kind, Kind::Generic) {
            rows.push(row("in a part", PARTS, [hang(UploadPart, SOME)]));
            rows.push(row("before a part", PARTS, [hang(UploadPart, 0)]));
        }
        check_archived_with(patient, vec![kind], rows)
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn store_reads_slowly() {
    use Operation::*;
    let slow = |operation, mib| Fault::new(operation, Effect::ReadSlowly(ByteSize::mib(mib)));
    check_archived(
        &Kind::EACH,
        vec![
            row("a put", SMALL, [slow(PutObject, 1)]),
            row("every part", PARTS, [slow(UploadPart, 3).times(3)]),
        ],
    )
    .await;
}

#[tokio::test]
async fn slow_body_400_request_timeout() {
    use Operation::*;
    let early = |operation| {
        let effect = Effect::AnswerEarly(SOME, 400, "RequestTimeout");
        Fault::new(operation, effect)
    };
    let late = |operation| Fault::new(operation, Effect::Answer(400, "RequestTimeout"));
    check_archived(
        &Kind::EACH,
        vec![
            row("early in a put", SMALL, [early(PutObject)]),
            row("early in a part", PARTS, [early(UploadPart)]),
            row(
                "early in parts",
                PARTS,
                [early(UploadPart).from(2).times(3)],
            ),
            row("late in a put", SMALL, [late(PutObject)]),
            row("late in parts", PARTS, [late(UploadPart).times(2)]),
        ],
    )
    .await;
}

#[tokio::test]
async fn complete_answers_an_empty_etag() {
    use Operation::*;
    let said = "<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>";
    let none = "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>";
    let says = |text| Fault::new(CompleteMultipartUpload, Effect::DoneButSay(200, text));
    check_archived(
        &Kind::ALL,
        vec![
            row("an empty tag", PARTS, [says(said)]),
            row("no tag", PARTS, [says(none)]),
        ],
    )
    .await;
}

#[tokio::test]
async fn head_length_differs() {
    for (kind, size) in each(&Kind::ALL) {
        let log = Log::default();
        let _listening = log.listen();
        let world = World::new(kind.plan(size)).await;
        let tells = Fault::new(Operation::HeadObject, Effect::TellLength(7)).from(2);
        world.bucket.plant(tells.times(u32::MAX));
        world.submit(1).await;
        run_until_doubted(&world, &log, "it holds 7 B of").await;
        // A store can have a bad moment.
        world.bucket.heal();
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
    }
}

#[tokio::test]
async fn metadata_dropped() {
    for (kind, size) in each(&Kind::ALL) {
        let mut plan = kind.plan(size);
        plan.bucket.quirks.keeps_metadata = false;
        let world = World::new(plan).await;
        let ids = world.submit(1).await;
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
        // Nothing but its bytes tells whose an object is: another manifest takes the same ones, and no others.
        let again = world.beside().await;
        again.announce(&ids).await;
        let records = again.run_to_the_end().await;
        again.assert_all_archived(&records);
        let log = Log::default();
        let _listening = log.listen();
        let key = world.bucket.objects()[0].key.clone();
        let theirs = vec![1; usize::try_from(size.as_u64()).unwrap()];
        world.bucket.replace(&key, theirs.into()).await;
        let third = world.beside().await;
        third.announce(&ids).await;
        run_until_doubted(&third, &log, "the key is taken by another object").await;
    }
}

#[tokio::test]
async fn a_key_that_may_not_list() {
    use Operation::*;
    let lost = |operation| Fault::new(operation, Effect::LoseAnswer);
    let failed = |operation| Fault::new(operation, Effect::INTERNAL_ERROR);
    let rows = [
        (SMALL, None),
        (SMALL, Some(lost(PutObject))),
        (SMALL, Some(failed(PutObject))),
        (PARTS, None),
        (PARTS, Some(lost(CreateMultipartUpload))),
        (PARTS, Some(failed(UploadPart).times(5))),
        (PARTS, Some(lost(CompleteMultipartUpload))),
        (PARTS, Some(failed(CompleteMultipartUpload))),
    ];
    let runs = Kind::EACH
        .iter()
        .flat_map(|kind| rows.iter().map(move |row| (kind, row)));
    let runs = runs.map(|(kind, (size, fault))| async move {
        let mut plan = kind.plan(*size);
        plan.bucket.quirks.may_list = false;
        let world = World::new(plan).await;
        let denied = Fault::new(ListParts, Effect::ACCESS_DENIED);
        world.bucket.plant(denied.times(u32::MAX));
        if let Some(fault) = fault {
            world.bucket.plant(fault.clone());
        }
        world.submit(1).await;
        let records = world.run_to_the_end().await;
        println!("{fault:?} at {kind:?}");
        world.assert_all_archived(&records);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn list_parts_lies_or_pages() {
    let lies = [
        None,
        Some(Effect::Edit("<Size>5242880<", "<Size>1<")),
        Some(Effect::Edit("<PartNumber>1<", "<PartNumber>77<")),
        Some(Effect::Edit("<ETag>", "<ETag>other")),
        Some(Effect::Edit("<Part>", "<Trap>")),
        Some(Effect::Edit(
            "<IsTruncated>false</IsTruncated>",
            "<IsTruncated>true</IsTruncated><NextPartNumberMarker>0</NextPartNumberMarker>",
        )),
        Some(Effect::DoneButSay(200, "")),
        Some(Effect::DoneButSay(200, "<html>")),
        Some(Effect::SLOW_DOWN),
        Some(Effect::ACCESS_DENIED),
        Some(Effect::Answer(405, "MethodNotAllowed")),
        Some(Effect::Answer(501, "NotImplemented")),
    ];
    for kind in Kind::EACH {
        let runs = lies.iter().map(|lie| async move {
            let mut plan = kind.plan(MANY);
            plan.bucket.quirks.page_entries_max = 1;
            let world = stopped_midway(plan).await;
            if let Some(lie) = lie {
                let fault = Fault::new(Operation::ListParts, lie.clone());
                world.bucket.plant(fault.times(2));
            }
            let records = world.run_to_the_end().await;
            println!("{lie:?} at {kind:?}");
            world.assert_all_archived(&records);
        });
        futures::future::join_all(runs).await;
    }
}

#[tokio::test]
async fn too_many_uploads_listed() {
    let lost = || Fault::new(Operation::CreateMultipartUpload, Effect::LoseAnswer);
    for kind in Kind::EACH {
        // An upload that a lost answer left, among others of our key: all are ended.
        let mut plan = kind.plan(PARTS);
        plan.bucket.quirks.page_entries_max = 10;
        let world = World::new(plan).await;
        world.bucket.plant(lost());
        world.submit(1).await;
        world.run_until(all_say_why).await;
        let key = world.bucket.open_uploads()[0].key.clone();
        world.bucket.open_others(&key, 25);
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
        assert_eq!(world.bucket.count(Operation::AbortMultipartUpload), 26);

        // More than any key can have: the list is not believed, and somebody is told.
        let log = Log::default();
        let _listening = log.listen();
        let world = World::new(kind.plan(PARTS)).await;
        world.bucket.plant(lost());
        world.submit(1).await;
        world.run_until(all_say_why).await;
        let key = world.bucket.open_uploads()[0].key.clone();
        world.bucket.open_others(&key, 11_500);
        let no_end = "the list of uploads has no end";
        let is_told = |records: &[TaskRecord]| error_of(records).contains(no_end);
        let records = world.run_until(is_told).await;
        assert_eq!(records[0].assets[0].state, AssetState::Due);
        assert_told(&log, no_end);
    }
}

#[tokio::test]
async fn checksum_mismatch() {
    use Operation::*;
    let flip = |operation| Fault::new(operation, Effect::Flip);
    let bad = |operation| Fault::new(operation, Effect::Answer(400, "BadDigest"));
    check_archived(
        &[Kind::Generic, Kind::R2],
        vec![
            row("turned in a put", SMALL, [flip(PutObject)]),
            row("turned in parts", PARTS, [flip(UploadPart).times(2)]),
        ],
    )
    .await;
    check_archived(
        &Kind::EACH,
        vec![
            row("refused at put", SMALL, [bad(PutObject)]),
            row("refused at parts", PARTS, [bad(UploadPart).times(2)]),
            row("refused at complete", PARTS, [bad(CompleteMultipartUpload)]),
        ],
    )
    .await;
    // Where nothing was checked on the way, or the copy went bad later, the look after the write tells.
    let unseen = [
        (Kind::Aws, SMALL, flip(PutObject)),
        (Kind::Aws, PARTS, flip(UploadPart)),
        (Kind::Aws, SMALL, Fault::new(PutObject, Effect::Damage)),
        (
            Kind::Aws,
            PARTS,
            Fault::new(CompleteMultipartUpload, Effect::Damage),
        ),
        (Kind::Generic, SMALL, Fault::new(PutObject, Effect::Damage)),
        (
            Kind::Generic,
            PARTS,
            Fault::new(CompleteMultipartUpload, Effect::Damage),
        ),
    ];
    for (kind, size, fault) in unseen {
        let log = Log::default();
        let _listening = log.listen();
        let world = World::new(kind.plan(size)).await;
        world.bucket.plant(fault);
        world.submit(1).await;
        run_until_doubted(&world, &log, "its checksum is").await;
    }
}
