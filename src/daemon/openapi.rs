//! The description of everything that the server answers, as `OpenAPI` 3.1.
//!
//! Written by hand, so that it says what is promised and not what happens to be; a test holds it to the routes.

use serde_json::Value;
use serde_json::json;

use crate::http::problem::PROBLEM_JSON;
use crate::intake::api::TAG_NAME_MAX;
use crate::intake::api::TAG_VALUE_MAX;
use crate::intake::api::TAGS_MAX;
use crate::intake::api::TASKS_MAX;
use crate::intake::api::URL_BYTES_MAX;
use crate::model::asset::AssetRole;
use crate::model::asset::AssetState;
use crate::model::object::ObjectState;
use crate::model::task::LearnedVia;
use crate::model::task::TaskState;
use crate::report::record::FORMAT;

/// The document.
pub fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Reelvault",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Archives AI video results before their links die, and proves it.",
            "description": "Errors are RFC 9457 problems with a `hint`. Times are RFC 3339 in UTC. Fields may be added to \
                            answers, never taken away.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{}, { "bearer": [] }, { "token": [] }],
        "tags": [
            { "name": "tasks", "description": "What is to be archived, and how it stands." },
            { "name": "manifest", "description": "What is archived where." },
            { "name": "daemon", "description": "How the daemon itself is." },
            { "name": "webhooks", "description": "For providers." },
        ],
        "paths": paths(),
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "token": { "type": "apiKey", "in": "header", "name": "x-reelvault-token" },
            },
            "parameters": parameters(),
            "responses": responses(),
            "schemas": schemas(),
        },
    })
}

#[expect(clippy::too_many_lines, reason = "a table, read from top to bottom")]
fn paths() -> Value {
    json!({
        "/healthz": { "get": {
            "operationId": "healthz", "tags": ["daemon"], "summary": "Whether the daemon lives", "security": [{}],
            "responses": answers(&["400", "421"], &json!({ "200": {
                "description": "It does.",
                "content": { "text/plain": { "schema": { "const": "ok\n" }, "example": "ok\n" } },
            }})),
        }},
        "/readyz": { "get": {
            "operationId": "readyz", "tags": ["daemon"], "summary": "Whether the daemon can archive", "security": [{}],
            "responses": answers(&["400", "421"], &json!({
                "200": in_json("It can.", "Ready", Some(&json!({ "ready": true, "reasons": [] }))),
                "503": in_json("It cannot, for these reasons.", "Ready", Some(&json!({
                    "ready": false,
                    "reasons": [{
                        "what": "provider evolink", "why": "401 unauthorized", "hint": "`reelvault check` tries its key",
                    }],
                }))),
            })),
        }},
        "/metrics": { "get": {
            "operationId": "metrics", "tags": ["daemon"], "summary": "Everything in numbers, for Prometheus",
            "responses": answers(&["400", "401", "421"], &json!({ "200": {
                "description": "OpenMetrics text. Where the manifest does not answer within 2 s, what it said last.",
                "content": { "application/openmetrics-text": { "schema": { "type": "string" } } },
            }})),
        }},
        "/openapi.json": { "get": {
            "operationId": "openapi", "tags": ["daemon"], "summary": "This document",
            "responses": answers(&["400", "401", "421"], &json!({ "200": {
                "description": "The document.",
                "content": { "application/json": { "schema": { "type": "object" } } },
            }})),
        }},
        "/api/v1/events": { "get": {
            "operationId": "follow", "tags": ["daemon"], "summary": "What happens, as it happens",
            "description": "Server-sent events. Each event of the outbox comes with its number as `id` and a document as \
                            `events list --json` prints it, without its deliveries; `Last-Event-ID` goes on behind that \
                            number. In between a `moved` says, at most every two seconds, that something is on its way.",
            "parameters": [{
                "name": "Last-Event-ID", "in": "header", "required": false,
                "schema": { "type": "integer", "minimum": 0 },
            }],
            "responses": answers(&["400", "401", "421", "503"], &json!({ "200": {
                "description": "The stream. It ends when the daemon stops or reloads.",
                "content": { "text/event-stream": { "schema": { "type": "string" } } },
            }})),
        }},
        "/api/v1/status": { "get": {
            "operationId": "status", "tags": ["daemon"], "summary": "Whether something will be lost, and when",
            "responses": answers(&["400", "401", "421", "503"], &json!({
                "200": in_json("How everything stands.", "Status", None),
            })),
        }},
        "/api/v1/tasks": {
            "get": {
                "operationId": "listTasks", "tags": ["tasks"], "summary": "Tasks, the oldest first, in pages",
                "parameters": named(&["provider", "state", "since", "at_risk", "limit", "after"]),
                "responses": answers(&["400", "401", "421", "503"], &json!({
                    "200": in_json("A page.", "TaskPage", None),
                })),
            },
            "post": {
                "operationId": "announceTasks", "tags": ["tasks"],
                "summary": "Announce one task, or up to a thousand",
                "description": "A task is known by its provider and its ID: announcing it again changes nothing but the \
                                tags that it lacked. What is wrong with one of many keeps no other from being learned.",
                "requestBody": body(&json!({ "oneOf": [
                    reference("NewTask"),
                    { "type": "array", "minItems": 1, "maxItems": TASKS_MAX, "items": {
                        "description": "A `NewTask`. Whatever else is refused by itself.",
                    }},
                ]}), &json!({
                    "one": { "value": { "task_id": "task-unified-1774857405-abc123", "tags": { "customer": "acme" } } },
                    "many": { "value": [
                        { "task_id": "task-unified-1774857405-abc123", "provider": "evolink" },
                        { "task_id": "task-unified-1774857406-def456", "provider": "evolink", "tags": {} },
                    ]},
                })),
                "responses": answers(&["400", "401", "403", "404", "408", "413", "415", "421", "422", "503"], &json!({
                    "200": in_json_of("The task was known; or, of many, none was refused.", &json!({
                        "oneOf": [reference("Outcome"), reference("Outcomes")],
                    })),
                    "201": in_json("The task is learned.", "Outcome", Some(&json!({
                        "provider": "evolink", "task_id": "task-unified-1774857405-abc123", "outcome": "learned",
                    }))),
                    "207": in_json("Some were refused.", "Outcomes", Some(&json!({
                        "learned": 1, "known": 0, "refused": 1,
                        "tasks": [
                            { "provider": "evolink", "task_id": "a", "outcome": "learned" },
                            { "task_id": "a/b", "outcome": "refused", "detail": "a/b is no task ID of this provider: its IDs have no slash" },
                        ],
                    }))),
                })),
            },
        },
        "/api/v1/tasks/{id}": {
            "parameters": named(&["id", "provider"]),
            "get": {
                "operationId": "showTask", "tags": ["tasks"], "summary": "One task; its end may be waited for",
                "parameters": named(&["wait"]),
                "responses": answers(&["400", "401", "404", "409", "421", "503"], &json!({
                    "200": in_json("The task as it is.", "Record", None),
                })),
            },
            "delete": {
                "operationId": "forgetTask", "tags": ["tasks"],
                "summary": "Forget a task; its archived objects stay where they are",
                "responses": answers(&["400", "401", "403", "404", "409", "421", "503"], &json!({
                    "204": { "description": "It is forgotten." },
                })),
            },
        },
        "/api/v1/tasks/{id}/retry": {
            "parameters": named(&["id", "provider"]),
            "post": {
                "operationId": "retryTask", "tags": ["tasks"],
                "summary": "Try again now what is not archived, also what was given up",
                "responses": answers(&["400", "401", "403", "404", "409", "421", "503"], &json!({
                    "200": in_json("So many rows are due now.", "Retried", Some(&json!({
                        "provider": "evolink", "task_id": "task-unified-1774857405-abc123", "due": 1,
                    }))),
                })),
            },
        },
        "/api/v1/tasks/{id}/assets/{index}": {
            "parameters": named(&["id", "index", "provider", "sig"]),
            "get": {
                "operationId": "fetchAsset", "tags": ["tasks"],
                "summary": "The archived copy of an asset: an address that never dies",
                "responses": answers(&["400", "401", "403", "404", "409", "410", "416", "421", "503"], &json!({
                    "200": { "description": "The file, from a folder.", "content": { "*/*": {} } },
                    "206": { "description": "The range of it that `Range` asks for.", "content": { "*/*": {} } },
                    "302": {
                        "description": "Where the copy is.",
                        "headers": { "Location": { "required": true, "schema": { "type": "string", "format": "uri" } } },
                    },
                    "304": { "description": "The file is the one that `If-None-Match` names." },
                })),
            },
        },
        "/api/v1/fetch": { "post": {
            "operationId": "fetchLink", "tags": ["tasks"], "summary": "Archive a link that no task stands behind",
            "requestBody": body(&reference("NewLink"), &json!({
                "one": { "value": { "url": "https://cdn.example.com/a.mp4", "tags": { "customer": "acme" } } },
            })),
            "responses": answers(&["400", "401", "403", "404", "408", "413", "415", "421", "422", "503"], &json!({
                "200": in_json("The link was known.", "Outcome", None),
                "201": in_json("The link is learned.", "Outcome", None),
            })),
        }},
        "/api/v1/manifest": { "get": {
            "operationId": "exportManifest", "tags": ["manifest"], "summary": "All records, a JSON document a line",
            "parameters": named(&["provider", "state", "since", "at_risk", "after"]),
            "responses": answers(&["400", "401", "421", "503"], &json!({ "200": {
                "description": "The records, in the order in which their tasks were learned.",
                "content": { "application/x-ndjson": { "schema": { "type": "string" } } },
            }})),
        }},
        "/api/v1/manifest/{id}": {
            "parameters": named(&["id", "provider"]),
            "get": {
                "operationId": "showRecord", "tags": ["manifest"], "summary": "The record of one task",
                "responses": answers(&["400", "401", "404", "409", "421", "503"], &json!({
                    "200": in_json("The record.", "Record", None),
                })),
            },
        },
        "/hooks/{provider}/{token}": { "post": {
            "operationId": "receiveWebhook", "tags": ["webhooks"], "security": [{}],
            "summary": "A provider says that a task has news; `reelvault check` prints the address",
            "description": "Of the body the task's ID is taken and nothing else, as the provider's description says.",
            "parameters": [
                { "name": "provider", "in": "path", "required": true, "schema": { "type": "string" } },
                { "name": "token", "in": "path", "required": true, "schema": { "type": "string" } },
            ],
            "requestBody": {
                "required": true,
                "content": { "application/json": {
                    "schema": {},
                    "examples": { "one": { "value": { "id": "task-unified-1774857405-abc123", "status": "completed" } } },
                }},
            },
            "responses": answers(&["400", "401", "404", "408", "413", "429", "503"], &json!({
                "200": in_json_of("It is written down.", &json!({ "type": "object" })),
            })),
        }},
    })
}

fn parameters() -> Value {
    let text = |name: &str, place: &str, what: &str, schema: Value| json!({ "name": name, "in": place, "required": place == "path", "description": what, "schema": schema });
    let states: Vec<&str> = TaskState::ALL
        .iter()
        .map(|state| state.as_str())
        .chain(AssetState::ALL.iter().map(|state| state.as_str()))
        .collect();
    json!({
        "id": text("id", "path", "The task's ID.", task_id()),
        "index": text("index", "path", "The asset's place among the results, from 0.", json!({
            "type": "integer", "minimum": 0, "maximum": u32::MAX,
        })),
        "provider": text("provider", "query", "Whose tasks; where two providers have the same ID, whose it is.", provider_name()),
        "state": text("state", "query", "Only tasks in this state, or with an asset in it.", json!({ "enum": states })),
        "since": text("since", "query", "Only learned within this time, or since this instant.", json!({
            "anyOf": [
                { "type": "string", "pattern": "^[1-9][0-9]{0,4}[smh]$" },
                { "type": "string", "format": "date-time" },
            ],
        })),
        "at_risk": text("at_risk", "query", "Only what dies soon and is not archived.", json!({ "type": "boolean" })),
        "limit": text("limit", "query", "Tasks on a page.", json!({
            "type": "integer", "minimum": 1, "maximum": 500, "default": 100,
        })),
        "after": text("after", "query", "`next` of the page before.", json!({
            "type": "string", "pattern": "^[0-9]{1,18}$",
        })),
        "wait": text("wait", "query", "Hold the answer back until the task has ended, for so long at most.", json!({
            "type": "string", "pattern": "^([1-5]?[0-9]|60)s$",
        })),
        "sig": text("sig", "query", "The proof in a link that this daemon gave.", json!({ "type": "string" })),
    })
}

fn responses() -> Value {
    let problems = [
        ("400", "The request makes no sense."),
        (
            "401",
            "It needs the daemon's token, or its signature does not fit.",
        ),
        (
            "403",
            "A page of another site sent it, or the link's proof does not fit.",
        ),
        ("404", "There is no such thing."),
        ("408", "The body did not come in time."),
        ("409", "Several are meant, or it is not so far yet."),
        ("410", "It is lost or refused."),
        ("413", "It is too much at a time."),
        ("415", "The body is not JSON by its type."),
        ("416", "The file has no such range."),
        ("421", "The host is no name of this daemon."),
        ("422", "The body is JSON that makes no sense."),
        (
            "429",
            "It is too much at once; `Retry-After` says when to come again.",
        ),
        ("503", "It cannot be done now; trying again makes sense."),
    ];
    let problem = |what: &str| json!({ "description": what, "content": { PROBLEM_JSON: { "schema": reference("Problem") } } });
    problems
        .iter()
        .map(|(status, what)| ((*status).to_owned(), problem(what)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn schemas() -> Value {
    let one_of = |words: Vec<&'static str>| json!({ "enum": words });
    let or_null = |schema: Value| json!({ "anyOf": [schema, { "type": "null" }] });
    let text = || json!({ "type": "string" });
    let count = || json!({ "type": "integer", "minimum": 0 });
    let time = || json!({ "type": "string", "format": "date-time" });
    let tags = || json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let sent_tags = json!({
        "type": "object", "maxProperties": TAGS_MAX,
        "propertyNames": { "minLength": 1, "maxLength": TAG_NAME_MAX },
        "additionalProperties": { "type": "string", "maxLength": TAG_VALUE_MAX },
    });
    json!({
        "Problem": object(&["type", "title", "status", "detail"], &json!({
            "type": text(), "title": text(), "status": { "type": "integer" }, "detail": text(), "hint": text(),
        })),
        "NewTask": strict(object(&["task_id"], &json!({
            "task_id": task_id(),
            "provider": { "anyOf": [provider_name(), { "type": "null" }],
                "description": "May be left out with one provider." },
            "tags": sent_tags,
            "callback_url": { "type": ["string", "null"], "format": "uri", "maxLength": URL_BYTES_MAX, "pattern": "^https?://",
                "description": "Called once the task is archived, failed or lost." },
        }))),
        "NewLink": strict(object(&["url"], &json!({
            "url": { "type": "string", "format": "uri", "maxLength": URL_BYTES_MAX, "pattern": "^https?://" },
            "to": { "type": ["array", "null"], "minItems": 1, "uniqueItems": true, "items": destination_name(),
                "description": "Destinations; all of them where it is left out." },
            "tags": sent_tags,
        }))),
        "Outcome": object(&["outcome"], &json!({
            "provider": text(), "task_id": text(),
            "outcome": { "enum": ["learned", "known", "refused"] },
            "state": one_of(TaskState::ALL.iter().map(|state| state.as_str()).collect()),
            "detail": text(),
        })),
        "Outcomes": object(&["learned", "known", "refused", "tasks"], &json!({
            "learned": count(), "known": count(), "refused": count(),
            "tasks": { "type": "array", "items": reference("Outcome") },
        })),
        "Retried": object(&["provider", "task_id", "due"], &json!({
            "provider": text(), "task_id": text(), "due": count(),
        })),
        "Ready": object(&["ready", "reasons"], &json!({
            "ready": { "type": "boolean" },
            "reasons": { "type": "array", "items": object(&["what", "why", "hint"], &json!({
                "what": text(), "why": text(), "hint": text(),
            }))},
        })),
        "TaskPage": object(&["tasks", "next"], &json!({
            "tasks": { "type": "array", "items": reference("Record") },
            "next": or_null(text()),
        })),
        "Status": object(&["verdict", "is_daemon_running", "at_risk", "lost", "refused", "tasks", "assets"], &json!({
            "verdict": { "enum": ["ok", "at_risk", "lost"] },
            "is_daemon_running": { "type": "boolean" },
            "at_risk": count(), "first_at_risk": or_null(json!({ "type": "object" })),
            "lost": count(), "refused": count(),
            "tasks": { "type": "object", "additionalProperties": count() },
            "assets": { "type": "object", "additionalProperties": count() },
            "bytes_archived": count(), "orphans": count(), "next_deadline": or_null(time()),
            "waiting": { "type": "array", "items": object(&["what", "provider", "rows", "error"], &json!({
                "what": { "enum": ["tasks", "assets"] }, "provider": text(), "rows": count(), "error": text(),
            }))},
            "machines": { "type": "array", "items": { "type": "object" } },
            "elsewhere": { "type": "object" },
        })),
        "Record": object(
            &["format", "provider", "task_id", "state", "tags", "learned_at", "deadline_at", "assets"],
            &json!({
                "format": { "const": FORMAT },
                "provider": text(), "task_id": text(), "state": text(), "model": or_null(text()), "tags": tags(),
                "created_at": or_null(time()), "completed_at": or_null(time()), "learned_at": time(),
                "learned_via": one_of(LearnedVia::ALL.iter().map(|via| via.as_str()).collect()),
                "deadline_at": time(), "deadline_from": text(), "archived_at": or_null(time()),
                "attempts": count(), "error": or_null(text()),
                "upstream": { "type": "object" },
                "assets": { "type": "array", "items": reference("Asset") },
            }),
        ),
        "Asset": object(&["index", "role", "state", "source", "objects"], &json!({
            "index": count(),
            "role": one_of(AssetRole::ALL.iter().map(|role| role.as_str()).collect()),
            "state": one_of(AssetState::ALL.iter().map(|state| state.as_str()).collect()),
            "deadline_at": time(), "deadline_from": text(), "due_at": or_null(time()), "error": or_null(text()),
            "source": { "type": "object" },
            "size": or_null(count()), "content_type": or_null(text()), "media": or_null(json!({ "type": "object" })),
            "sha256": or_null(text()), "crc64nvme": or_null(text()),
            "objects": { "type": "array", "items": reference("Object") },
        })),
        "Object": object(&["destination", "state"], &json!({
            "destination": text(),
            "state": one_of(ObjectState::ALL.iter().map(|state| state.as_str()).collect()),
            "url": or_null(text()), "bucket": or_null(text()), "key": or_null(text()), "etag": or_null(text()),
            "version_id": or_null(text()), "parts": count(), "archived_at": or_null(time()),
            "verified": or_null(text()), "verified_at": or_null(time()),
        })),
    })
}

fn task_id() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]+$",
        "not": { "anyOf": [{ "pattern": "[?#%]" }, { "pattern": "(^|/)\\.{0,2}(/|$)" }] } })
}

fn destination_name() -> Value {
    json!({ "type": "string", "maxLength": 64, "pattern": "^[a-z][a-z0-9_]*$" })
}

fn provider_name() -> Value {
    json!({ "type": "string", "maxLength": 64, "pattern": "^[a-z][a-z0-9_]*$" })
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// The same without room for what is not known: in requests a name that we do not know is a mistake.
fn strict(mut schema: Value) -> Value {
    if let Value::Object(schema) = &mut schema {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    schema
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn named(parameters: &[&str]) -> Vec<Value> {
    let named = parameters.iter();
    named
        .map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }))
        .collect()
}

fn body(schema: &Value, examples: &Value) -> Value {
    json!({
        "required": true,
        "content": { "application/json": { "schema": schema, "examples": examples } },
    })
}

fn in_json(what: &str, schema: &str, example: Option<&Value>) -> Value {
    let mut answer = in_json_of(what, &reference(schema));
    if let (Some(example), Some(content)) =
        (example, answer.pointer_mut("/content/application~1json"))
    {
        *content = json!({ "schema": reference(schema), "example": example });
    }
    answer
}

fn in_json_of(what: &str, schema: &Value) -> Value {
    json!({ "description": what, "content": { "application/json": { "schema": schema } } })
}

/// The answers of an operation: its own, and these problems.
fn answers(problems: &[&str], own: &Value) -> Value {
    let mut answers = own.as_object().cloned().unwrap_or_default();
    for status in problems {
        answers.insert(
            (*status).to_owned(),
            json!({ "$ref": format!("#/components/responses/{status}") }),
        );
    }
    answers.into()
}
