//! Members: how core 0's view of the members acts within a turn.
//!
//! What follows for the machines goes to all cores in the order in which it was decided: so other terms
//! of keyspaces are in force everywhere before the link is up that they came over.

use replication::Event;
use ring::Now;

use super::{Core, Letter};
use crate::members::Members;
use crate::native;

impl Core {
    /// Lets core 0's view of the members act; what follows goes to every core.
    pub fn with_members(&mut self, act: impl FnOnce(&mut Members, Now, &mut Vec<Event>)) {
        let (now, me) = (self.now(), self.shared.config.node);
        let Some(members) = &mut self.members else { return };
        let mut events = Vec::new();
        act(members, now, &mut events);
        let answers = members.take_answers();
        let looks = members.take_looks();
        self.begin();
        for (asker, reply) in answers {
            let hlc = self.hlc();
            asker.send(&self.shared, &reply, hlc);
        }
        for event in events {
            for core in 0..self.mail.len() {
                self.hand(core, Letter::Event(event.clone()));
            }
        }
        // After those: the machines have heard that the keyspace is closed.
        for wanted in looks {
            native::look_for_peer(self, me, wanted);
        }
    }
}
