/* bcc includes this name; nothing of it is used here. */
