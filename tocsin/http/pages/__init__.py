"""For everybody: the HTML pages, the links in mails, and the files that pages load."""
