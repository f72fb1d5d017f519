// The icons, as strokes.

export const BELL = 'M6 9.5a6 6 0 0 1 12 0c0 5 2 6.5 2 6.5H4s2-1.5 2-6.5M10 19.5a2.2 2.2 0 0 0 4 0';
export const CLOSE = 'M6 6l12 12M18 6 6 18';
export const CHECK_ALL = 'm2.5 12.5 4.5 4.5L17 7M12.5 16l1 1 8.5-9';
export const SETTINGS = 'M4 8h16M4 16h16M9 5v6M15 13v6';
export const ARCHIVE = 'M3.5 5.5h17v4h-17zM5 9.5v9h14v-9M10 13h4';
export const READ = 'm5 12.5 4.5 4.5L19 7';
export const UNREAD = 'M12 8.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7Z';
export const CHEVRON = 'm6 9.5 6 6 6-6';
