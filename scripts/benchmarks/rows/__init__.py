"""One module for each group of rows; a row's function measures and judges, the caller prints."""
