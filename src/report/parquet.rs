//! `summary.parquet`: the rows of `summary.csv` with types.

use std::path::Path;

use anyhow::{Context, Result};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use serde_json::Value;

use super::summary::{Row, rows};
use crate::atomic::write_atomically;
use crate::claims::ClaimedRun;

/// Writes the rows of [`rows`] as parquet; the file appears whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write_parquet(runs: &[ClaimedRun], path: &Path) -> Result<()> {
    write_atomically(path, &parquet(&rows(runs))?)
}

/// The rows as a parquet file of one row group. A column is boolean, integer, float or text, the narrowest that holds
/// all of its values; one without any value is float. Whatever is absent is null.
///
/// # Errors
/// If the rows cannot be encoded.
pub fn parquet(rows: &[Row]) -> Result<Vec<u8>> {
    let keys: Vec<&String> = rows.first().map(|row| row.keys().collect()).unwrap_or_default();
    let columns: Vec<Vec<&Value>> = keys
        .iter()
        .map(|key| rows.iter().map(|row| row.get(*key).unwrap_or(&Value::Null)).collect())
        .collect();
    let field = |(key, values): (&&String, &Vec<&Value>)| {
        let kind = physical(values);
        let text = (kind == Physical::BYTE_ARRAY).then_some(LogicalType::String);
        let field = Type::primitive_type_builder(key, kind).with_repetition(Repetition::OPTIONAL);
        field.with_logical_type(text).build().map(Into::into)
    };
    let fields = keys.iter().zip(&columns).map(field).collect::<Result<Vec<_>, _>>()?;
    let schema = Type::group_type_builder("summary").with_fields(fields).build()?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema.into(), properties.into())?;
    let mut group = file.next_row_group()?;
    for values in &columns {
        let mut column = group.next_column()?.context("a column for each key")?;
        let levels: Vec<i16> = values.iter().map(|v| i16::from(!v.is_null())).collect();
        let levels = Some(levels.as_slice());
        let there = values.iter().filter(|v| !v.is_null());
        match column.untyped() {
            ColumnWriter::BoolColumnWriter(w) => {
                let values: Vec<bool> = there.filter_map(|v| v.as_bool()).collect();
                w.write_batch(&values, levels, None)?;
            }
            ColumnWriter::Int64ColumnWriter(w) => {
                let values: Vec<i64> = there.filter_map(|v| v.as_i64()).collect();
                w.write_batch(&values, levels, None)?;
            }
            ColumnWriter::DoubleColumnWriter(w) => {
                let values: Vec<f64> = there.filter_map(|v| v.as_f64()).collect();
                w.write_batch(&values, levels, None)?;
            }
            ColumnWriter::ByteArrayColumnWriter(w) => {
                let values: Vec<ByteArray> = there.map(|v| text(v).as_str().into()).collect();
                w.write_batch(&values, levels, None)?;
            }
            _ => unreachable!("the schema has no other types"),
        }
        column.close()?;
    }
    group.close()?;
    file.close()?;
    Ok(bytes)
}

fn physical(values: &[&Value]) -> Physical {
    let all = |is: fn(&Value) -> bool| values.iter().filter(|v| !v.is_null()).all(|v| is(v));
    match () {
        () if all(Value::is_null) => Physical::DOUBLE,
        () if all(Value::is_boolean) => Physical::BOOLEAN,
        () if all(Value::is_i64) => Physical::INT64,
        () if all(Value::is_number) => Physical::DOUBLE,
        () => Physical::BYTE_ARRAY,
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_read_back_is_what_was_written_absent_values_too() {
        let rows: Vec<Row> = [
            json!({"id": "a", "seed": 3, "mix": 0, "share": 0.25, "told": true, "none": null, "both": "x"}),
            json!({"id": "b, \"c\"\n", "seed": null, "mix": 0.5, "share": null, "told": null, "none": null, "both": 1}),
        ]
        .into_iter()
        .map(|row| row.as_object().unwrap().clone())
        .collect();
        let bytes = parquet(&rows).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.parquet");
        std::fs::write(&path, bytes).unwrap();
        let file = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
        let read: Vec<Value> =
            file.get_row_iter(None).unwrap().map(|row| row.unwrap().to_json_value()).collect();
        let expected = [
            json!({"id": "a", "seed": 3, "mix": 0.0, "share": 0.25, "told": true, "none": null, "both": "x"}),
            json!({"id": "b, \"c\"\n", "seed": null, "mix": 0.5, "share": null, "told": null, "none": null, "both": "1"}),
        ];
        assert_eq!(read, expected);
    }
}
