"""Did it get slower? Numbers of one run against those of another, with an interval and a verdict."""
