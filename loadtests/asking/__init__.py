"""What is asked, of which servers, by whom: the sides of an experiment."""
