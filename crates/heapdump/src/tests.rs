pub(crate) mod convert;
mod json;
mod oracle;
mod round_trip;
