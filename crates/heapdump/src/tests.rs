mod convert;
mod oracle;
mod round_trip;
