"""Side-by-side measurements of Modelplane and its peers; each starts with one command and ends with its bars."""
