module modelplane/tests/pause

go 1.25
