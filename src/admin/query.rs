//! Query parameters, decoded strictly: each at most once, none that is not known.

use std::str::FromStr;

use super::answer::Refusal;

/// The parameters of one request.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Takes a raw query apart.
    ///
    /// # Errors
    /// 400 for a parameter that is not in `known` or comes twice.
    pub(super) fn parse(raw: Option<&str>, known: &[&str]) -> Result<Self, Refusal> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(raw.unwrap_or_default().as_bytes()) {
            let hint = || format!("the parameters are {}", known.join(", "));
            if !known.contains(&name.as_ref()) {
                return Err(Refusal::bad_request(format!("unknown parameter {name:?}"), hint()));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(Refusal::bad_request(format!("parameter {name:?} comes twice"), hint()));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter; an empty one counts as absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(other, _)| other == name)?;
        (!value.is_empty()).then_some(value.as_str())
    }

    /// The value of a parameter as something it must parse as.
    ///
    /// # Errors
    /// 400, with `wanted` as the hint.
    pub(super) fn parsed<T: FromStr>(&self, name: &str, wanted: &str) -> Result<Option<T>, Refusal> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Refusal::bad_request(format!("{name}={text:?} cannot be used"), format!("{name} is {wanted}"))
                })
            })
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_doubled_parameters_are_refused() {
        assert!(Query::parse(None, &["limit"]).is_ok());
        assert!(Query::parse(Some("limit=1"), &["limit"]).is_ok());
        assert!(Query::parse(Some("limits=1"), &["limit"]).is_err());
        assert!(Query::parse(Some("limit=1&limit=2"), &["limit"]).is_err());
    }

    #[test]
    fn values_are_parsed_or_refused() {
        let query = Query::parse(Some("limit=12&after="), &["limit", "after"]).unwrap();
        assert_eq!(query.parsed::<usize>("limit", "a number"), Ok(Some(12)));
        assert_eq!(query.parsed::<usize>("after", "a number"), Ok(None));
        let query = Query::parse(Some("limit=-1"), &["limit"]).unwrap();
        assert!(query.parsed::<usize>("limit", "a number").is_err());
    }
}
