//! Answers about tasks that say what is not so.

use serde_json::Value;
use serde_json::json;

use crate::simulator::script::Lie;
use crate::simulator::tasks::Status;
use crate::simulator::tasks::Task;

/// How far a task is said to be that is said to run again.
const BACK_PERCENT: u8 = 97;

impl Lie {
    /// The answer that is told of `task`, where `answer` gives the one for a status.
    pub(in crate::simulator) fn told(
        &self,
        task: &Task,
        status: &Status,
        answer: impl Fn(&Status) -> Value,
    ) -> Value {
        let mut told = answer(status);
        match self {
            Lie::NoResults => {
                if let Some(fields) = told.as_object_mut() {
                    fields.remove("results");
                }
            }
            Lie::UnknownStatus => set(&mut told, "status", json!("post_processing")),
            Lie::Back => told = answer(&Status::Processing(BACK_PERCENT)),
            Lie::OtherId => set(&mut told, "id", json!(format!("{}-other", task.id))),
            Lie::WrongTypes => {
                set(&mut told, "created", json!("yesterday"));
                set(&mut told, "progress", json!([100]));
                set(&mut told, "results", json!({ "0": 7 }));
                set(&mut told, "task_info", json!(true));
            }
            Lie::Huge(size) => set(&mut told, "note", json!("x".repeat(size.as_usize()))),
        }
        told
    }
}

fn set(told: &mut Value, field: &str, value: Value) {
    if let Some(fields) = told.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}
