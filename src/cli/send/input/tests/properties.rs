use proptest::prelude::*;

use super::*;

/// Reads the columns a, b, c back.
fn read_back(options: &InputOptions, input: &[u8]) -> (Vec<[String; 3]>, Result<(), BadInput>) {
    let mut seen = Vec::new();
    let end = read(input, options, &mut Findings::default(), |item| {
        seen.extend(item.row().map(|row| {
            ["a", "b", "c"].map(|name| {
                let value = row.record.identifiers.get(name).cloned();
                value.unwrap_or_default()
            })
        }));
        true
    });
    (seen, end)
}

fn is_blank(row: &[String; 3]) -> bool {
    row.iter().all(|value| value.trim().is_empty())
}

proptest! {
    #[test]
    fn values_written_by_another_csv_writer_read_back(
        values in prop::collection::vec(prop::array::uniform3("[d-zé\",;\t| \r\n]{0,6}"), 0..20),
        delimiter in prop::sample::select(&b",;\t|"[..]),
        end in prop::sample::select(&[
            ::csv::Terminator::CRLF, ::csv::Terminator::Any(b'\n'), ::csv::Terminator::Any(b'\r'),
        ][..]),
        encode in prop::sample::select(&[
            |text: &str| text.as_bytes().to_vec(),
            |text: &str| [&[0xff, 0xfe][..], &utf16le(text)].concat(),
        ][..]),
    ) {
        let mut writer = ::csv::WriterBuilder::new().delimiter(delimiter).terminator(end)
            .from_writer(vec![]);
        writer.write_record(["a", "b", "c"]).unwrap();
        for row in &values {
            writer.write_record(row).unwrap();
        }
        let written = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let options = InputOptions {
            delimiter: Some(delimiter),
            nulls: vec![],
            ..InputOptions::new(InputFormat::Csv)
        };
        let (seen, end) = read_back(&options, &encode(&written));
        prop_assert_eq!(end, Ok(()));
        let filled: Vec<_> = values.into_iter().filter(|row| !is_blank(row)).collect();
        prop_assert_eq!(seen, filled);
    }

    /// Whatever this reader accepts, another one reads alike.
    #[test]
    fn what_is_accepted_is_what_another_csv_reader_reads(text in "[\"dx, \r\n]{0,40}") {
        let input = format!("a,b,c\n{text}");
        let options = InputOptions { nulls: vec![], ..InputOptions::new(InputFormat::Csv) };
        let (seen, end) = read_back(&options, input.as_bytes());
        if end.is_ok() {
            let mut reader = ::csv::ReaderBuilder::new().flexible(true).from_reader(input.as_bytes());
            let rows: Vec<_> = reader.deserialize::<Vec<String>>().map(Result::unwrap).collect();
            let filled = rows.into_iter().filter(|row| row.iter().any(|cell| !cell.trim().is_empty()));
            let filled: Vec<_> = filled.map(|row| <[String; 3]>::try_from(row).unwrap()).collect();
            prop_assert_eq!(seen, filled);
        }
    }

    #[test]
    fn whatever_the_input_lines_rise_and_the_wrong_one_is_last(
        text in "[\"a,\n\r{}:\u{feff}]{0,40}",
        bytes in prop::collection::vec(any::<u8>(), 0..20),
        bad_rows in prop::sample::select(&[BadRows::Stop, BadRows::Skip][..]),
    ) {
        let input = [&b"a,b\n"[..], text.as_bytes(), &bytes].concat();
        for format in [InputFormat::Csv, InputFormat::Ndjson] {
            let mut lines = Vec::new();
            let options = InputOptions { bad_rows, ..InputOptions::new(format) };
            let end = read(&input[..], &options, &mut Findings::default(), |item| {
                lines.extend(match item {
                    InputItem::Row(row) => Some(row.line),
                    InputItem::Bad(wrong) => Some(wrong.line),
                    InputItem::Note(_) => None,
                });
                true
            });
            let last = end.err().map(|wrong| wrong.line);
            prop_assert!(lines.is_sorted_by(|earlier, later| earlier < later), "{lines:?}");
            prop_assert!(last >= lines.last().copied() || last.is_none(), "{lines:?} {last:?}");
        }
    }

    /// No bytes make it panic, and no line disappears: each has a row or a reason, or is blank.
    #[test]
    fn no_line_is_lost_whatever_the_bytes(
        lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..12),
    ) {
        let ends = |byte: &u8| matches!(byte, b'\n' | b'\r' | b'"');
        let lines: Vec<Vec<u8>> = lines
            .into_iter()
            .map(|mut line| { line.retain(|byte| !ends(byte)); line })
            .collect();
        for (format, first) in [(InputFormat::Csv, "a"), (InputFormat::Ndjson, "{}")] {
            let input = [&[first.as_bytes().to_vec()], &lines[..]].concat().join(&b'\n');
            let options = InputOptions { bad_rows: BadRows::Skip, nulls: vec![], ..InputOptions::new(format) };
            let mut told = 0;
            let mut findings = Findings::default();
            let end = read(&input[..], &options, &mut findings, |item| {
                told += usize::from(!matches!(item, InputItem::Note(_)));
                true
            });
            prop_assume!(end.is_ok());
            let blank = |line: &&Vec<u8>| {
                let text = String::from_utf8_lossy(line);
                let text = text.trim_start_matches('\u{feff}');
                match format {
                    InputFormat::Csv => text.bytes().all(|byte| byte == b',' || byte.is_ascii_whitespace()),
                    InputFormat::Ndjson => text.trim().is_empty(),
                }
            };
            let filled = lines.iter().filter(|line| !blank(line)).count();
            let headers = usize::try_from(findings.headers.count).unwrap();
            let expected = filled + usize::from(format == InputFormat::Ndjson);
            prop_assert_eq!(told + headers, expected);
        }
    }
}

fn utf16le(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
