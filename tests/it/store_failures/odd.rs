//! Stores that heed conditions here and there, list parts without their checksums, or refuse all for an odd reason.

use reelvault::simulator::bucket::Conditions;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::units::Span;

use crate::faults::Kind;
use crate::faults::MANY;
use crate::faults::MENDED;
use crate::faults::SMALL;
use crate::faults::all_say_why;
use crate::faults::assert_told;
use crate::faults::stopped_midway;
use crate::store_failures::rows::run_until_doubted;
use crate::world::Log;
use crate::world::World;

#[tokio::test]
async fn what_comes_while_an_upload_is_under_way_is_not_overwritten() {
    for quirks in ["generic", "plain"] {
        let log = Log::default();
        let _listening = log.listen();
        let mut plan = Kind::Generic.plan(MANY);
        plan.store = format!("quirks = {quirks:?}");
        plan.bucket.quirks.conditions = Conditions::Ignored;
        plan.extra.push_str("parts_ahead = 1\n");
        let world = World::new(plan).await;
        let late = Fault::new(Operation::UploadPart, Effect::Delay(Span::from_millis(300)));
        world.bucket.plant(late.from(2));
        world.submit(1).await;
        let theirs = async {
            world.bucket.reached(Operation::UploadPart, 2).await;
            let key = world.bucket.open_uploads()[0].key.clone();
            world
                .bucket
                .replace(&key, b"theirs".as_slice().into())
                .await;
            key
        };
        let doubted = run_until_doubted(&world, &log, "the key is taken by another object");
        let ((), key) = tokio::join!(doubted, theirs);
        assert_eq!(world.bucket.bytes(&key).unwrap(), b"theirs");
    }
}

#[tokio::test]
async fn a_list_of_parts_without_their_checksums_is_made_up_for() {
    let silent = || {
        let none = Effect::Edit("ChecksumCRC32", "ChecksumNONE");
        Fault::new(Operation::ListParts, none).times(u32::MAX)
    };
    let plan = || {
        let mut plan = Kind::Generic.plan(MANY);
        plan.store += "\nchecksum = \"crc32\"";
        plan
    };
    let world = World::new(plan()).await;
    world.bucket.plant(silent());
    world.submit(1).await;
    let records = world.run_to_the_end().await;
    world.assert_all_archived(&records);
    // Nobody knows those from before a restart any more: the upload begins anew.
    let world = stopped_midway(plan()).await;
    world.bucket.plant(silent());
    let records = world.run_to_the_end().await;
    world.assert_all_archived(&records);
}

#[tokio::test]
async fn a_destination_that_takes_nothing_is_told_whatever_it_says() {
    for (status, code) in [(400, "InvalidArgument"), (413, "")] {
        let log = Log::default();
        let _listening = log.listen();
        let world = World::new(Kind::Generic.plan(SMALL)).await;
        let refuses = Fault::new(Operation::PutObject, Effect::Answer(status, code));
        world.bucket.plant(refuses.times(u32::MAX));
        world.submit(3).await;
        world.run_until(all_say_why).await;
        assert_told(&log, "the destination takes nothing");
        world.bucket.heal();
        world.pass(MENDED);
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
    }
}
