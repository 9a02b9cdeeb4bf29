//! Runs a batch on a model instance, and finds the items that make it fail.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::job::ItemResult;
use crate::runtime::{Instance, Item, ModelError};

/// Runs items and appends their results, in order. If a batch fails, its two halves run separately, and so on, until
/// the item that makes it fail is alone.
pub(super) fn run_batch(instance: &mut dyn Instance, items: &[Item], results: &mut Vec<ItemResult>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| instance.run(items)))
        .unwrap_or_else(|_| Err(ModelError::model("the model panicked")));
    match outcome {
        Ok(outputs) if outputs.len() == items.len() => results.extend(outputs.into_iter().map(Ok)),
        Ok(outputs) => {
            let message = format!("the model returned {} results for {} items", outputs.len(), items.len());
            let error = ModelError::model(message);
            results.extend(items.iter().map(|_| Err(error.clone())));
        }
        Err(error) if items.len() == 1 => results.push(Err(error)),
        Err(error) => {
            tracing::warn!(%error, kind = ?error.kind(), items = items.len(), "a batch failed; running its halves");
            let (first, second) = items.split_at(items.len() / 2);
            run_batch(instance, first, results);
            run_batch(instance, second, results);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::{Echo, HostTensor};

    use super::*;
    use crate::runtime::Model;

    #[test]
    fn a_poison_item_fails_alone() {
        let echo = Echo::with_faults();
        let items: Vec<Item> = ["a", "b", "fail:model", "d", "e"]
            .map(|body| echo.prepare("text/plain", Bytes::from_static(body.as_bytes())).unwrap())
            .into();
        let mut results = Vec::new();
        run_batch(echo.instance().unwrap().as_mut(), &items, &mut results);
        let failed: Vec<bool> = results.iter().map(Result::is_err).collect();
        assert_eq!(failed, [false, false, true, false, false]);
        for (item, result) in items.iter().zip(&results) {
            assert!(result.as_ref().is_err() || result.as_ref().unwrap() == &item.tensors);
        }
    }

    #[test]
    fn a_model_that_panics_or_miscounts_fails_the_jobs_not_the_worker() {
        struct Broken;
        impl Instance for Broken {
            fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<HostTensor>>, ModelError> {
                assert!(items.len() != 1, "a panic on purpose");
                Ok(Vec::new())
            }

            fn warm_up(&mut self) -> Result<(), ModelError> {
                Ok(())
            }
        }
        let item = Item { tensors: Vec::new() };
        for items in [vec![item.clone()], vec![item; 2]] {
            let mut results = Vec::new();
            run_batch(&mut Broken, &items, &mut results);
            assert_eq!(results.len(), items.len());
            assert!(results.iter().all(Result::is_err));
        }
    }
}
