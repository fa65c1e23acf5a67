"""Matrix-free linear algebra: extreme eigenvalues and traces of operators that are only ever applied."""
