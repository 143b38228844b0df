//! What changes at upstream: tags and signatures.

use super::driver::Simulation;
use super::model::{ImageId, Key, RepositoryId, TagId};
use super::world::{REPOSITORIES, TAGS, catalogue};

impl Simulation<'_> {
    /// Tags and signatures.
    pub(super) fn change(&mut self) {
        let repository = usize::from(self.random.percent(25));
        match self.random.below(10) {
            0..4 => {
                let tag = self.random.below(TAGS.len() - 1);
                self.move_tag(repository, tag);
            }
            4 => {
                let tag = self.random.below(TAGS.len() - 1);
                self.remove_tag(repository, tag);
            }
            _ => {
                let image = self.random.below(catalogue().images.len());
                self.sign(repository, image);
            }
        }
    }

    pub(super) fn remove_tag(&mut self, repository: RepositoryId, tag: TagId) {
        self.note("a tag is removed", &format!("{}:{}", REPOSITORIES[repository], TAGS[tag]));
        self.upstream.change(|registry| registry.untag(REPOSITORIES[repository], TAGS[tag]));
        self.model.change(|moment| moment.tags.retain(|known, _| *known != (repository, tag)));
    }

    pub(super) fn move_tag(&mut self, repository: RepositoryId, tag: TagId) {
        let image = self.random.below(catalogue().images.len());
        self.note("a tag moves", &format!("{}:{} to image {image}", REPOSITORIES[repository], TAGS[tag]));
        let digest = catalogue().images[image].digest();
        self.upstream.change(|registry| registry.tag(REPOSITORIES[repository], TAGS[tag], digest));
        self.model.change(|moment| moment.tags.extend([((repository, tag), image)]));
    }

    /// Signatures come and go, at their tag or as a bundle.
    pub(super) fn sign(&mut self, repository: RepositoryId, image: ImageId) {
        let catalogue = catalogue();
        let (mut keys, mut bundle) = self.signatures.remove(&(repository, image)).unwrap_or_default();
        if self.random.percent(70) {
            let by = [
                vec![Key::A],
                vec![],
                vec![Key::B],
                vec![Key::B, Key::A],
                vec![Key::Keyless],
                vec![Key::Keyless, Key::A],
            ];
            keys.clone_from(self.random.one_of(&by));
            self.note("a signature", &format!("image {image} of repository {repository} by {keys:?}"));
            catalogue.sign(&self.upstream, repository, image, &keys);
        } else {
            if let Some((_, manifest)) = bundle.take() {
                self.upstream.change(|registry| registry.remove_manifest(REPOSITORIES[repository], &manifest));
            } else {
                let key = *self.random.one_of(&[Key::A, Key::B]);
                bundle = Some((key, catalogue.bundle(&self.upstream, repository, image, key)));
            }
            self.note("a bundle", &format!("image {image} of repository {repository}: {bundle:?}"));
        }
        let signed: Vec<Key> = keys.iter().copied().chain(bundle.map(|(key, _)| key)).collect();
        self.signatures.insert((repository, image), (keys, bundle));
        self.model.change(|moment| drop(moment.signed.insert((repository, image), signed)));
    }
}
