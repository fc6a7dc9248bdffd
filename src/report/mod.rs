//! Results to files for people: tables and one self-contained HTML page.
