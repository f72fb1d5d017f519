// The drawings, as strokes.

export const BELL = ['M6 9.5a6 6 0 0 1 12 0c0 5 2 6.5 2 6.5H4s2-1.5 2-6.5', 'M10 19.5a2.2 2.2 0 0 0 4 0'];
export const CLOSE = ['M6 6l12 12M18 6 6 18'];
export const CHECK_ALL = ['m2.5 12.5 4.5 4.5L17 7', 'm12.5 16 1 1 8.5-9'];
export const GEAR = [
  'M12 15.2a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4Z',
  'M19.4 13.9a7.6 7.6 0 0 0 0-3.8l2-1.5-2-3.4-2.3 1a7.6 7.6 0 0 0-3.3-1.9L13.5 2h-3l-.3 2.3a7.6 7.6 0 0 0-3.3 1.9l-2.3-1-2 3.4 2 1.5a7.6 7.6 0 0 0 0 3.8l-2 1.5 2 3.4 2.3-1a7.6 7.6 0 0 0 3.3 1.9l.3 2.3h3l.3-2.3a7.6 7.6 0 0 0 3.3-1.9l2.3 1 2-3.4Z',
];
export const ARCHIVE = ['M3.5 5.5h17v4h-17zM5 9.5v9h14v-9M10 13h4'];
export const READ = ['m5 12.5 4.5 4.5L19 7'];
export const UNREAD = ['M12 8.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7Z'];
