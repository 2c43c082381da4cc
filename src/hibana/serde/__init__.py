"""JSON as the reference reads it: which texts it accepts, and its exact sentence and position for those it refuses.

Bytes enter; records (msgspec Structs) leave, or one `JsonError`. Clients match these sentences down to the column, so
this package follows the observable rules of Rust's serde_json rather than those of a Python library. Read `reader.py`
first (the grammar: bytes and positions), then `shapes.py` (what a field may be), `records.py` (Structs from text);
`rust.py` writes strings and floats as Rust does. Used by every chapter that reads JSON from people: api, config, cli.
"""
