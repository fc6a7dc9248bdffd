//! Parquet files, compressed in any of the usual ways.

use std::fs::File;
use std::path::Path;

use anyhow::Result;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::{Document, Rows, document};
use crate::error::input_error;

pub(super) fn read(path: &Path) -> Result<Vec<Document>> {
    let fault = |e: &dyn std::fmt::Display| input_error(format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(|e| fault(&e))?;
    let reader = SerializedFileReader::new(file).map_err(|e| fault(&e))?;
    let mut rows = Rows::default();
    for (i, row) in reader.get_row_iter(None).map_err(|e| fault(&e))?.enumerate() {
        let row = document(&row.map_err(|e| fault(&e))?.to_json_value());
        if !rows.push(|| format!("{}: row {i}", path.display()), row) {
            break;
        }
    }
    rows.finish()
}

#[cfg(test)]
mod tests {
    use super::super::tests::write;
    use super::*;
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
