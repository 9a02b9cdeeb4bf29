//! The model that returns its input. It replaces a real model in systems without libtorch.
//!
//! With [`Echo::faults`], three inputs fail on purpose, so that failures can be tried on a running system. Without it,
//! these inputs are normal data.

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{Datatype, Echo, HostTensor};
use queue::{Body, JobError, JobErrorKind, Output};

use super::error::ModelError;
use super::interface::{Instance, Item, Model};

/// With [`Echo::faults`], [`Model::prepare`] refuses an input that starts with this. Only the job of this input fails.
pub const REFUSED_INPUT: &[u8] = b"fail:input";
/// With [`Echo::faults`], every batch with an input that starts with this fails as a whole.
pub const FAILING_INPUT: &[u8] = b"fail:model";
/// With [`Echo::faults`], a batch with an input that starts with this aborts the process, as a crash in libtorch would.
pub const CRASH_INPUT: &[u8] = b"fail:process";

impl Model for Echo {
    fn prepare(&self, media_type: &str, body: Bytes) -> Result<Item, JobError> {
        if self.faults && body.starts_with(REFUSED_INPUT) {
            let message = "body: starts with fail:input, which the model echo-faults refuses";
            return Err(JobErrorKind::BadInput.error(message));
        }
        // Both are BYTES tensors of one element, so that inputs of any length share a batch.
        let media_type = Bytes::copy_from_slice(media_type.as_bytes());
        Ok(Item { tensors: vec![one_element("media_type", media_type), one_element("body", body)] })
    }

    fn present(&self, tensors: Vec<HostTensor>) -> Result<Output, JobError> {
        let [media_type, body] = <[HostTensor; 2]>::try_from(tensors).map_err(|tensors| {
            JobErrorKind::ModelError.error(format!("the echo model returned {} tensors instead of 2", tensors.len()))
        })?;
        let media_type = String::from_utf8_lossy(&media_type.data).into_owned();
        Ok(Output { media_type, body: Body::Inline(body.data) })
    }

    fn max_batch_items(&self) -> usize {
        self.max_items
    }

    fn instance(&self) -> Result<Box<dyn Instance>, ModelError> {
        Ok(Box::new(EchoInstance { delay: self.delay, faults: self.faults }))
    }
}

/// The echo model on its thread.
struct EchoInstance {
    delay: Duration,
    faults: bool,
}

impl Instance for EchoInstance {
    fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<HostTensor>>, ModelError> {
        wait(self.delay);
        let any = |start| items.iter().flat_map(|item| &item.tensors).any(|tensor| tensor.data.starts_with(start));
        if self.faults && any(CRASH_INPUT) {
            std::process::abort();
        }
        if self.faults && any(FAILING_INPUT) {
            return Err(ModelError::model("an input starts with fail:model, which makes the model echo-faults fail"));
        }
        Ok(items.iter().map(|item| item.tensors.clone()).collect())
    }

    fn warm_up(&mut self) -> Result<(), ModelError> {
        wait(self.delay);
        Ok(())
    }
}

/// Blocks this thread as a device would. An early wake-up does not shorten the wait.
fn wait(time: Duration) {
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
    fn an_input_is_returned_with_its_media_type() {
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
    fn with_faults_one_input_fails_its_whole_batch_and_another_is_refused_before() {
        let echo = Echo::with_faults();
        let items = [item(&echo, "text/plain", b"fine"), item(&echo, "text/plain", b"fail:model, please")];
        let mut instance = echo.instance().unwrap();
        assert!(instance.run(&items).is_err());
        assert!(instance.run(&items[..1]).is_ok());
        let refused = echo.prepare("text/plain", Bytes::from_static(b"fail:input")).unwrap_err();
        assert_eq!(refused.kind, "bad_input");
    }

    #[test]
    fn without_faults_every_input_is_returned_as_it_is() {
        let echo = Echo::default();
        let mut instance = echo.instance().unwrap();
        for body in [REFUSED_INPUT, FAILING_INPUT, CRASH_INPUT] {
            let outputs = instance.run(&[item(&echo, "text/plain", body)]).unwrap();
            let output = echo.present(outputs.into_iter().next().unwrap()).unwrap();
            assert_eq!(output.body, Body::Inline(Bytes::from_static(body)));
        }
    }
}
