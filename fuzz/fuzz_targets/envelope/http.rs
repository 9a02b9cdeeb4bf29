//! The modules of the gateway that read an envelope.

#[path = "../../../gateway/src/http/job_request.rs"]
pub(crate) mod job_request;
#[path = "../../../gateway/src/http/options.rs"]
mod options;
#[path = "../../../gateway/src/http/problem/kind.rs"]
mod problem_kind;
#[path = "../../../gateway/src/http/query.rs"]
mod query;

/// Stands in for the gateway's problem, whose conversions need the whole gateway.
pub(crate) mod problem {
    pub(crate) use super::problem_kind::ProblemKind;

    #[derive(Debug)]
    pub(crate) struct Problem {
        pub(crate) kind: ProblemKind,
        pub(crate) detail: String,
        pub(crate) field: Option<String>,
    }

    impl Problem {
        pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
            Self { kind, detail: detail.into(), field: None }
        }

        pub(crate) fn field(self, field: impl Into<String>) -> Self {
            Self { field: Some(field.into()), ..self }
        }
    }
}
