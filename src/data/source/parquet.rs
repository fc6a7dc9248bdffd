//! Parquet files, compressed in any of the usual ways.

use std::sync::Arc;

use anyhow::Result;
use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;

use super::bounded_parquet::BoundedParquet;
use super::document::{BEYOND_TEXT, COLUMNS};
use super::rows::Take;
use crate::bail_input;
use crate::caught::caught;
use crate::error::input_error;

/// Gives every row to `take` until it says false, of the columns that documents have; `shown` is what messages call
/// the file. `expect` is told (start, length) of the stretches of a row group that will be read.
pub(super) fn rows(
    file: impl ChunkReader + 'static,
    shown: &str,
    expect: impl Fn(Vec<(u64, u64)>),
    take: &mut Take,
) -> Result<()> {
    match caught(|| read_rows(file, shown, expect, take)) {
        Ok(read) => read,
        Err(said) => bail_input!("{shown}: the file is damaged: {said}"),
    }
}

fn read_rows(
    file: impl ChunkReader + 'static,
    shown: &str,
    expect: impl Fn(Vec<(u64, u64)>),
    take: &mut Take,
) -> Result<()> {
    let fault = |e: &dyn std::fmt::Display| input_error(format!("{shown}: {e}"));
    let bounded = BoundedParquet::open(file).map_err(|e| fault(&e))?;
    let reader = SerializedFileReader::new(bounded.clone()).map_err(|e| fault(&e))?;
    bounded.begin_pages();
    let metadata = reader.metadata();
    let columns = columns(metadata, shown)?;
    let mut i = 0;
    for group in 0..reader.num_row_groups() {
        expect(stretches(metadata, group, &columns).map_err(|e| fault(&e))?);
        let group = reader.get_row_group(group).map_err(|e| fault(&e))?;
        let rows = RowIter::from_row_group(Some(columns.clone()), group.as_ref()).map_err(|e| fault(&e))?;
        for row in rows {
            bounded.next_row();
            let row = row.map_err(|e| fault(&format!("row {i}: {e}")))?;
            let numbers = row.get_column_iter().find_map(|(name, field)| not_finite(name, field));
            if !take(&|| format!("{shown}: row {i}"), numbers.map_or(Ok(row.to_json_value()), Err)) {
                return Ok(());
            }
            i += 1;
        }
    }
    Ok(())
}

/// What is wrong with a number of a column that is NaN or infinite: as JSON it would be missing.
fn not_finite(name: &str, field: &Field) -> Option<String> {
    let fault = |value: f64| (!value.is_finite()).then(|| format!("{name} is {value}; expected a number"));
    match field {
        Field::Float16(value) => fault(value.to_f64()),
        Field::Float(value) => fault(f64::from(*value)),
        Field::Double(value) => fault(*value),
        Field::Group(row) => row.get_column_iter().find_map(|(name, field)| not_finite(name, field)),
        Field::ListInternal(list) => list.elements().iter().find_map(|field| not_finite(name, field)),
        _ => None,
    }
}

/// The schema of the columns of which documents can be made.
///
/// # Errors
/// An input error if there are none.
fn columns(metadata: &ParquetMetaData, shown: &str) -> Result<Type> {
    let schema = metadata.file_metadata().schema();
    let fields = schema.get_fields();
    let serves = |column: &&Arc<Type>| match column.name() {
        "text" => kind(column) == "string",
        "messages" => kind(column) == "list",
        "prompt" | "completion" => ["string", "list"].contains(&kind(column)),
        // What makes a row another one is read too, so that it is refused where there is something.
        name => COLUMNS.contains(&name) || BEYOND_TEXT.contains(&name),
    };
    let wanted: Vec<Arc<Type>> = fields.iter().filter(serves).cloned().collect();
    let has = |name: &str| wanted.iter().any(|column| column.name() == name);
    if !(has("text") || has("messages") || has("prompt") && has("completion")) {
        let found: Vec<String> = fields.iter().map(|f| format!("{} ({})", f.name(), kind(f))).collect();
        bail_input!(
            "{shown}: found columns {}; expected text (string), messages (list), or prompt and completion (string or \
             list)",
            found.join(", ")
        );
    }
    let built = Type::group_type_builder(schema.name()).with_fields(wanted).build();
    built.map_err(|e| input_error(format!("{shown}: {e}")))
}

/// What a column holds, in a word.
fn kind(column: &Type) -> &'static str {
    let info = column.get_basic_info();
    let repeated = info.has_repetition() && info.repetition() == Repetition::REPEATED;
    let list = matches!(info.logical_type_ref(), Some(LogicalType::List))
        || info.converted_type() == ConvertedType::LIST;
    if repeated || list {
        return "list";
    }
    if !column.is_primitive() {
        return "struct";
    }
    let string =
        matches!(info.logical_type_ref(), Some(LogicalType::String | LogicalType::Json | LogicalType::Enum))
            || matches!(
                info.converted_type(),
                ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM
            );
    match column.get_physical_type() {
        _ if string => "string",
        Physical::BOOLEAN => "booleans",
        Physical::INT32 | Physical::INT64 | Physical::INT96 => "integers",
        Physical::FLOAT | Physical::DOUBLE => "numbers",
        Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY => "bytes",
    }
}

/// Where the wanted columns of a row group stand: (start, length).
fn stretches(metadata: &ParquetMetaData, group: usize, wanted: &Type) -> Result<Vec<(u64, u64)>, String> {
    let columns = metadata.row_group(group).columns().iter();
    let root =
        |path: &[String]| wanted.get_fields().iter().any(|f| path.first().is_some_and(|n| n == f.name()));
    let wanted = columns.filter(|c| root(c.column_path().parts()));
    wanted
        .map(|c| {
            let start = c.dictionary_page_offset().unwrap_or(c.data_page_offset()).min(c.data_page_offset());
            let stretch = u64::try_from(start).ok().zip(u64::try_from(c.compressed_size()).ok());
            stretch.ok_or_else(|| format!("row group {group}: a column at {start}; the file is damaged"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::write;
    use super::super::{Document, read};
    use crate::error::InputError;

    #[test]
    fn parquet_rows_are_read_and_a_cut_file_is_an_error() {
        use parquet::basic::{Compression, ZstdLevel};
        use parquet::data_type::ByteArrayType;
        use parquet::file::properties::WriterProperties;
        use parquet::file::writer::SerializedFileWriter;
        use parquet::schema::parser::parse_message_type;

        let texts = ["one", "zwei\nZeilen", "三"];
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(Default::default()),
            Compression::ZSTD(ZstdLevel::default()),
        ] {
            let schema = parse_message_type("message m { REQUIRED BINARY text (UTF8); }").unwrap();
            let properties = WriterProperties::builder().set_compression(compression).build();
            let mut bytes = Vec::new();
            let mut file = SerializedFileWriter::new(&mut bytes, schema.into(), properties.into()).unwrap();
            for part in texts.chunks(2) {
                let mut group = file.next_row_group().unwrap();
                let mut column = group.next_column().unwrap().unwrap();
                let values: Vec<_> = part.iter().map(|t| (*t).into()).collect();
                column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
                column.close().unwrap();
                group.close().unwrap();
            }
            file.close().unwrap();
            let (_dir, path) = write("a.parquet", &bytes);
            let read_back: Vec<String> = read(&path).unwrap().iter().map(Document::full_text).collect();
            assert_eq!(read_back, texts, "{compression:?}");
            let (_dir, path) = write("cut.parquet", &bytes[..bytes.len() / 2]);
            let e = read(&path).unwrap_err();
            assert!(e.is::<InputError>() && e.to_string().contains("cut.parquet"), "{e}");
        }
    }

    #[test]
    fn truncated_parquet_is_an_input_error() {
        let (_dir, path) = write("a.parquet", b"PAR1 not really");
        assert!(read(&path).unwrap_err().is::<InputError>());
    }
}
