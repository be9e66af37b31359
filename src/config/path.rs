//! Where in the configuration a value stands, in the operator's own words: `plans.gold.budget`, `tiers[1].price`.

/// The way to a value, from the value upwards: it costs nothing until it is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path<'a> {
    /// The configuration as a whole.
    Top,
    /// The value of a key of the object there.
    Key(&'a Self, &'a str),
    /// A value of the list there, counted from 0.
    Index(&'a Self, usize),
}

impl Path<'_> {
    pub(super) fn key<'a>(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }

    pub(super) fn index(&self, index: usize) -> Path<'_> {
        Path::Index(self, index)
    }

    /// As it is told; empty for the whole.
    #[cold]
    pub(super) fn told(&self) -> String {
        match self {
            Path::Top => String::new(),
            Path::Key(Path::Top, key) => (*key).to_owned(),
            Path::Key(parent, key) => parent.told() + "." + key,
            Path::Index(parent, index) => parent.told() + "[" + &index.to_string() + "]",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_path_is_told_from_the_top() {
        assert_eq!(Path::Top.told(), "");
        let plans = Path::Top.key("plans");
        assert_eq!(plans.told(), "plans");
        assert_eq!(
            plans.key("gold").key("tiers").index(12).told(),
            "plans.gold.tiers[12]"
        );
        assert_eq!(
            Path::Top.key("a").index(1).index(0).key("b").told(),
            "a[1][0].b"
        );
    }
}
