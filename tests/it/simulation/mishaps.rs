//! What happens to the mirror and to the disk below it.

use std::sync::Arc;

use futures_util::future::join_all;
use sealgate::testing::Fault;

use super::disk::{Disk, WRECKS};
use super::driver::Simulation;
use super::request::{Request, ask};
use crate::random::Random;

impl Simulation<'_> {
    pub(super) fn damage(&mut self) {
        if let Some(what) = self.disk.damage(&mut self.random) {
            self.note(&format!("damage: {what}"), "");
            self.model.damage();
        }
    }

    /// File operations fail from now on, and clients ask.
    pub(super) async fn disk_trouble(&mut self) -> Result<(), String> {
        let fault = self.disk.fail(&mut self.random);
        self.note("disk trouble", &fault);
        self.model.damage();
        self.clients().await?;
        self.clients().await
    }

    pub(super) async fn restart(&mut self) -> Result<(), String> {
        self.note("a restart", "");
        self.start_again(|_, _| {}).await
    }

    /// The mirror dies in the middle of its work, as far as its files can tell.
    pub(super) async fn kill(&mut self) -> Result<(), String> {
        self.note("a kill", "");
        let mut was_dark = false;
        if self.random.percent(60) {
            // Transfers that do not end by themselves are under way.
            let bytes = *self.random.one_of(&[1, 5000, 65_000]);
            self.upstream.heal();
            self.upstream.fault(None, &Fault::on("*/blobs/*").get().hang_after(bytes));
            self.model.trouble();
            was_dark = self.model.light();
        }
        let requests: Vec<Request> = (0..4).map(|_| self.request()).collect();
        let (address, tick) = (self.address(), Arc::clone(&self.tick));
        let mut asking = Box::pin(join_all(requests.iter().map(|request| ask(address, *request))));
        for _ in 0..self.random.below(8) {
            tokio::select! {
                biased;
                answers = &mut asking => {
                    requests.iter().zip(&answers).try_for_each(|(one, answer)| self.check(*one, answer.as_ref()))?;
                    break;
                }
                () = tick.notified() => {}
            }
        }
        let staged = self.disk.remember();
        drop(asking);
        if staged > 0 {
            self.note("a kill with staging left", &format!("{staged} files"));
        }
        self.model.forgets();
        self.start_again(|disk, _| disk.put_back()).await?;
        if was_dark {
            self.model.darkness();
        }
        Ok(())
    }

    /// Ends all faults, waits for what still runs, starts the mirror again, perhaps without its database, and then has the faults
    /// again.
    async fn start_again(&mut self, meanwhile: impl FnOnce(&Disk, &mut Random)) -> Result<(), String> {
        let wreck = if self.random.percent(25) { Some(*self.random.one_of(&WRECKS)) } else { None };
        if let Some(wreck) = wreck {
            self.count(format!("the database: {wreck}"));
            self.say(format!("the database {wreck}"));
            self.model.damage();
            self.model.forgets();
        }
        self.upstream.heal();
        self.settle().await;
        let (mut mirror, mut random) = (self.mirror.take().unwrap(), self.random.clone());
        let disk = &self.disk;
        let restarted = Box::pin(mirror.restart_after(|_| {
            meanwhile(disk, &mut random);
            if let Some(wreck) = wreck {
                disk.wreck(wreck, &mut random);
            }
        }));
        // Nothing is under way that needs time to pass; what the disk needs must not count against the drain.
        let outcome = self.run_to_end(disk.without_faults(restarted), false).await;
        self.mirror = Some(mirror);
        self.faults.iter().for_each(|(only, fault)| self.upstream.fault(*only, fault));
        outcome
    }
}
