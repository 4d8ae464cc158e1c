"""Starting runs quickly: a process that has imported everything already becomes, by fork, one run after the other."""
