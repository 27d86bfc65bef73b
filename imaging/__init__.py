"""One image file of any kind as 8-bit pixels (`images`), and what is known of each data set (`catalogue`)."""
