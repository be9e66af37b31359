//! The path of a value in the configuration, as an operator writes it: `plans.gold.budget`, `tiers[1].price`.

/// The path of a value, as a chain of links to the values around it. Building a path is free; only printing one costs time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path<'a> {
    /// The configuration as a whole.
    Top,
    /// The value of this key, in the object at the first path.
    Key(&'a Self, &'a str),
    /// The element at this index of the list at the first path, counted from 0.
    Index(&'a Self, usize),
}

impl Path<'_> {
    pub(super) fn key<'a>(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }

    pub(super) fn index(&self, index: usize) -> Path<'_> {
        Path::Index(self, index)
    }

    /// The path as text; empty for the whole configuration.
    #[cold]
    pub(super) fn text(&self) -> String {
        match self {
            Path::Top => String::new(),
            Path::Key(Path::Top, key) => (*key).to_owned(),
            Path::Key(parent, key) => parent.text() + "." + key,
            Path::Index(parent, index) => parent.text() + "[" + &index.to_string() + "]",
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
        assert_eq!(Path::Top.text(), "");
        let plans = Path::Top.key("plans");
        assert_eq!(plans.text(), "plans");
        assert_eq!(
            plans.key("gold").key("tiers").index(12).text(),
            "plans.gold.tiers[12]"
        );
        assert_eq!(
            Path::Top.key("a").index(1).index(0).key("b").text(),
            "a[1][0].b"
        );
    }
}
