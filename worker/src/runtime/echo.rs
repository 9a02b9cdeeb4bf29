//! The model that returns its input. It stands in for a real one where libtorch is not wanted.

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use queue::{Body, JobError, Output};

use super::{Datatype, HostTensor, Instance, Item, Model, ModelError};

/// Returns each input as it came, media type included, after a chosen time per batch.
///
/// Three inputs misbehave on purpose, so that failure can be tried on a running system:
/// - a body that starts with [`Echo::REFUSED`] is refused while it is prepared: that job alone fails;
/// - a batch holding a body that starts with [`Echo::POISON`] fails as a whole, however often it is run;
/// - a batch holding a body that starts with [`Echo::KILLER`] takes the whole process down, as a crash in libtorch would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// What one batch takes, whatever its size.
    pub delay: Duration,
    /// The most items that may run at once.
    pub max_items: usize,
}

impl Echo {
    /// An input starting like this is refused by [`Model::prepare`].
    pub const REFUSED: &'static [u8] = b"fail:input";
    /// An input starting like this makes [`Instance::run`] fail.
    pub const POISON: &'static [u8] = b"fail:model";
    /// An input starting like this makes [`Instance::run`] abort the process.
    pub const KILLER: &'static [u8] = b"fail:process";
    /// [`Echo::max_items`] unless it is given.
    pub const DEFAULT_MAX_ITEMS: usize = 256;
}

impl Default for Echo {
    fn default() -> Self {
        Self { delay: Duration::ZERO, max_items: Self::DEFAULT_MAX_ITEMS }
    }
}

impl Model for Echo {
    fn prepare(&self, media_type: &str, body: Bytes) -> Result<Item, JobError> {
        if body.starts_with(Self::REFUSED) {
            let message = "body: starts with fail:input, which the echo model refuses".to_owned();
            return Err(JobError { kind: "bad_input".to_owned(), message });
        }
        // Both are BYTES tensors of one element, so that inputs of any length share a batch.
        let media_type = Bytes::copy_from_slice(media_type.as_bytes());
        Ok(Item { tensors: vec![one_element("media_type", media_type), one_element("body", body)] })
    }

    fn present(&self, tensors: Vec<HostTensor>) -> Result<Output, JobError> {
        let [media_type, body] = <[HostTensor; 2]>::try_from(tensors).map_err(|tensors| {
            let message = format!("the echo model gave {} tensors instead of 2", tensors.len());
            JobError { kind: "model_error".to_owned(), message }
        })?;
        let media_type = String::from_utf8_lossy(&media_type.data).into_owned();
        Ok(Output { media_type, body: Body::Inline(body.data) })
    }

    fn max_batch_items(&self) -> usize {
        self.max_items
    }

    fn instance(&self) -> Result<Box<dyn Instance>, ModelError> {
        Ok(Box::new(Running { delay: self.delay }))
    }
}

/// The echo model at work on its thread.
struct Running {
    delay: Duration,
}

impl Instance for Running {
    fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<HostTensor>>, ModelError> {
        pretend_to_compute(self.delay);
        let any = |marker| items.iter().flat_map(|item| &item.tensors).any(|tensor| tensor.data.starts_with(marker));
        if any(Echo::KILLER) {
            std::process::abort();
        }
        if any(Echo::POISON) {
            return Err(ModelError("an input starts with fail:model, on which the echo model fails".to_owned()));
        }
        Ok(items.iter().map(|item| item.tensors.clone()).collect())
    }

    fn warm_up(&mut self) -> Result<(), ModelError> {
        pretend_to_compute(self.delay);
        Ok(())
    }
}

/// Keeps this thread as a device would: it cannot be hurried, so an early wake-up waits on.
fn pretend_to_compute(time: Duration) {
    let begun = Instant::now();
    while let Some(left) = time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

fn one_element(name: &str, data: Bytes) -> HostTensor {
    HostTensor { name: name.to_owned(), datatype: Datatype::Bytes, shape: vec![1], data }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(echo: &Echo, media_type: &str, body: &'static [u8]) -> Item {
        echo.prepare(media_type, Bytes::from_static(body)).unwrap()
    }

    #[test]
    fn what_goes_in_comes_out_with_its_media_type() {
        let echo = Echo::default();
        let items = [item(&echo, "image/png", b"\x89PNG"), item(&echo, "text/plain; charset=utf-8", b"")];
        let outputs: Vec<Output> = (echo.instance().unwrap().run(&items).unwrap().into_iter())
            .map(|tensors| echo.present(tensors).unwrap())
            .collect();
        assert_eq!(outputs[0].media_type, "image/png");
        assert_eq!(outputs[0].body, Body::Inline(Bytes::from_static(b"\x89PNG")));
        assert_eq!(outputs[1].media_type, "text/plain; charset=utf-8");
        assert_eq!(outputs[1].body, Body::Inline(Bytes::new()));
    }

    #[test]
    fn inputs_of_any_length_have_one_shape() {
        let echo = Echo::default();
        let shapes = |item: Item| item.tensors.into_iter().map(|tensor| tensor.shape).collect::<Vec<_>>();
        assert_eq!(shapes(item(&echo, "a/b", b"short")), shapes(item(&echo, "text/plain", b"rather longer")));
    }

    #[test]
    fn a_batch_takes_the_delay_once() {
        let echo = Echo { delay: Duration::from_millis(30), ..Echo::default() };
        let items = vec![item(&echo, "text/plain", b"x"); 100];
        let begun = Instant::now();
        echo.instance().unwrap().run(&items).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn poison_fails_its_whole_batch_and_a_refused_input_fails_before() {
        let echo = Echo::default();
        let items = [item(&echo, "text/plain", b"fine"), item(&echo, "text/plain", b"fail:model, please")];
        let mut instance = echo.instance().unwrap();
        assert!(instance.run(&items).is_err());
        assert!(instance.run(&items[..1]).is_ok());
        let refused = echo.prepare("text/plain", Bytes::from_static(b"fail:input")).unwrap_err();
        assert_eq!(refused.kind, "bad_input");
    }
}
